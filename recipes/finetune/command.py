"""`python -m recipes.<name> SPEC.json OUT/` of a recipe that fine-tunes: one process, or the leader of several."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from recipes.contract import EventLog, RecipeExit, RecipeFailure
from recipes.entry import load_spec
from recipes.finetune.beside import Beside
from recipes.finetune.data import Sets, load_sets
from recipes.finetune.leading import ASIDE, lead
from recipes.finetune.line import BeginAgain, Ending, Line
from recipes.finetune.places import place_of
from recipes.finetune.spec import FinetuneSpec
from recipes.models.opening import check_base
from recipes.models.quiet import import_nemo_quietly
from recipes.room import full_disk, last_words

#: Makes of a spec what is trained: given OUT of this machine, the data and where to say what happens. Called once the
#: input is known to be good and NeMo is there, in every process that trains.
Prepare = Callable[[FinetuneSpec, Path, Sets, EventLog], tuple[FinetuneSpec, Beside]]


@dataclass(frozen=True)
class Command:
    """One recipe's name, settings, and what it does before it trains."""

    name: str = "finetune"
    kind: type[FinetuneSpec] = FinetuneSpec
    check: Callable[[FinetuneSpec, Sets], None] | None = None  # raises RecipeFailure for what is wrong with the input
    prepare: Prepare | None = None

    def read_spec(self, path: Path) -> FinetuneSpec:
        """The spec in a file, paths absolute. Raises RecipeFailure(BAD_INPUT): file, field, value, fix."""
        return load_spec(path, self.kind).resolved(path.absolute().parent)

    def main(self, argv: Sequence[str]) -> int:
        """Run the recipe; returns its exit code. Every ending is one line on stderr."""
        if len(argv) != 2:
            print(f"usage: python -m recipes.{self.name} SPEC.json OUT/", file=sys.stderr)  # noqa: T201
            return int(RecipeExit.BAD_INPUT)
        out, started = Path(argv[1]).absolute(), False
        mine = Line.mine()
        if mine is not None:
            self._one_of_several(Path(argv[0]), out, mine)
        try:
            spec = self.read_spec(Path(argv[0]))
            place = place_of(spec.devices, os.environ)
            if place.world > 1:
                return lead(place, out, self.name)
            started = True
            code, line = self._work(spec, out, out)
        except Exception as error:
            failure = error if isinstance(error, RecipeFailure) else full_disk(error, out)
            if failure is None:
                raise
            code, line = failure.code, failure.message
            if started:
                last_words(out, int(code), line)
        print(f"{self.name}: {line}", file=sys.stderr)  # noqa: T201
        return int(code)

    def _work(
        self, spec: FinetuneSpec, out: Path, machine_out: Path, *, several: bool = False
    ) -> tuple[RecipeExit, str]:
        """Look at all of the input, then train; returns the exit code and one line about how it went."""
        events = EventLog(out)
        events.emit("phase", name="loading")
        sets = load_sets(spec, lambda message: events.emit("warning", message=message))
        if self.check is not None:
            self.check(spec, sets)
        check_base(spec.base, is_path=spec.base_is_path, allow_unsupported=spec.allow_unsupported_base,
                   trusted=spec.trust_base)  # fmt: skip
        import_nemo_quietly(out / "nemo.log")  # takes seconds: only once the input is known to be good
        from recipes.finetune.run import finetune

        beside = Beside()
        if self.prepare is not None:
            spec, beside = self.prepare(spec, machine_out, sets, events)
        return finetune(spec, out, sets, several=several, beside=beside)

    def _one_of_several(self, spec: Path, out: Path, mine: Line) -> NoReturn:
        """Work as one of the processes that train together; whoever started them says how it ended.

        All but the first work in a folder of their own, so that nothing is written twice.
        """
        rank = int(os.environ["RANK"])
        size = os.environ["WORLD_SIZE"]  # Lightning removes it at its end
        who = f"process {rank} of the {size} that train together"
        try:
            own = out if rank == 0 else out / ASIDE / str(rank)
            code, line = self._work(self.read_spec(spec), own, out, several=True)
            ending = Ending("done", int(code), line)
        except BeginAgain as smaller:
            ending = Ending("again", 1, str(smaller), smaller.settings)
        except Exception as error:  # noqa: BLE001  (said, and the process ended: its own end may wait for the others)
            failure = error if isinstance(error, RecipeFailure) else full_disk(error, out)
            if failure is not None:
                mine.end(Ending("failed", int(failure.code), failure.message))
            traceback.print_exc()
            words = str(error).strip().partition("\n")[0][:300]
            ending = Ending("crashed", 1, f"{who} failed ({type(error).__name__}: {words}): the others were ended")
        mine.end(ending)
