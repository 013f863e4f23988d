"""2,000 recorded clips over 20 Mbit/s and 80 ms to a rented machine: ours against rsync -az and SkyPilot's own sync.

Real speech (Debian's asterisk-core-sounds-*: half of the clips WAV at 8 kHz, half G.722 decoded to 16 kHz), a machine
of the simulated cloud with a real sshd, behind a link of taps (tests/cloud/link.py: 20 Mbit/s each way, 40 ms each
way, a drop-tail queue of 0.3 s). The three take turns, each into an empty folder, timed from the call to its return:

ours       SshHost.put of the bundle's data folder as FLAC, over the connection that the launcher has open by then.
           Encoding happens before renting, so it is not billed: `ours_s` is without it, `ours_with_encoding_s` with.
rsync      rsync -az -e ssh FOLDER/ of the same clips and manifest as WAV, with a connection of its own.
skypilot   sky.utils.command_runner.SSHCommandRunner.rsync, which a sync of file_mounts without a bucket calls, over
           the ControlMaster connection that it has open by then.

Needs root, rsync, apt-get and the extra `cloud`. Writes bench/results/upload.json; exit 1 above 0.75 of the better.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "phone-prompts")]

LIMIT, CLIPS, MBIT, ROUND_TRIP_MS = 0.75, 2_000, 20.0, 80.0
RESULT = ROOT / "bench" / "results" / "upload.json"
LANGUAGES = ("en", "es", "fr", "it", "ru")
SKY = """
import json, sys, time
from sky.utils import command_runner
ip, port, key, source, *targets = sys.argv[1:]
runner = command_runner.SSHCommandRunner((ip, int(port)), "root", key, ssh_control_name="upload")
runner.run("true", stream_logs=False)  # its connection stands, as it does by the time that it syncs
start = time.monotonic()
runner.rsync(source, targets[0], up=True, stream_logs=False)
print(json.dumps(time.monotonic() - start))
"""


def main() -> int:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="rounds of all three (default 3)")
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"how many (default {CLIPS})")
    parser.add_argument("--only", default="ours,rsync,skypilot", help="which of them (then nothing is kept)")
    asked = parser.parse_args()
    names = asked.only.split(",")
    if os.geteuid() != 0:
        print("not measured: a simulated machine is made of namespaces, which needs root")
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        recordings(folder / "clips", asked.clips)
        made = bundles(folder)
        with machine(folder) as there:
            times: dict[str, list[float]] = {name: [] for name in names}
            wire: dict[str, list[int]] = {name: [] for name in names}
            for turn in range(asked.runs):
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    seconds, received = there.timed(name, made, f"{name}-{turn}")
                    times[name].append(seconds)
                    wire[name].append(received)
                    print(f"{name}: {seconds:.1f} s, {received / 1e6:.1f} MB", flush=True)
    middle = {name: statistics.median(held) for name, held in times.items()}
    if set(names) != {"ours", "rsync", "skypilot"} or asked.clips != CLIPS:
        return 0
    better = min(middle["rsync"], middle["skypilot"])
    ratio = round(middle["ours"] / better, 3)
    result = {
        "ratio": ratio, "limit": LIMIT, "clips": CLIPS, "mbit_s": MBIT, "round_trip_ms": ROUND_TRIP_MS,
        **{f"{name}_s": round(held, 2) for name, held in middle.items()},
        "ours_with_encoding_s": round(middle["ours"] + made["encoding_s"], 2),
        "ratio_with_encoding": round((middle["ours"] + made["encoding_s"]) / better, 3),
        "encoding_s": round(made["encoding_s"], 2),
        "all_s": {name: [round(s, 2) for s in held] for name, held in times.items()},
        "wire_bytes": {name: int(statistics.median(held)) for name, held in wire.items()},
        "wav_bytes": made["wav_bytes"], "flac_bytes": made["flac_bytes"], "runs": asked.runs,
        "rsync": subprocess.run(["rsync", "--version"], capture_output=True, text=True, check=True).stdout.split()[2],
        "cpus": os.cpu_count(), "python": platform.python_version(),
        "measured_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"ours {middle['ours']:.1f} s of {better:.1f} s: {ratio} (limit {LIMIT}); "
          f"with encoding {result['ratio_with_encoding']}")  # fmt: skip
    return 0 if ratio <= LIMIT else 1


def recordings(folder: Path, clips: int) -> None:
    """A user's folder: WAV of both rates, and a manifest; the same clips each time."""
    import soundfile
    from fetch import cache_dir, fetch

    from launcher.data.convert import convert

    folder.mkdir()
    chance, rows = random.Random(1), []
    for suffix in ("wav", "g722"):
        pool = []
        for language in LANGUAGES:
            sounds = fetch(f"asterisk-core-sounds-{language}-{suffix}", cache_dir()) / "usr/share/asterisk/sounds"
            pool += [path for path in sorted(sounds.rglob(f"*.{suffix}")) if path.stat().st_size > 4000]
        for number, source in enumerate(chance.sample(pool, clips // 2)):
            clip = folder / f"{suffix}-{number:04d}-{source.stem}.wav"
            if suffix == "wav":
                shutil.copyfile(source, clip)
            else:
                convert(source, clip)
            seconds = soundfile.info(str(clip)).duration
            text = source.stem.replace("-", " ")
            rows.append({"audio_filepath": clip.name, "duration": round(seconds, 3), "text": text})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def bundles(folder: Path) -> dict[str, Any]:
    """What the launcher makes before it rents, and how long the encoding took."""
    from launcher import bundle, transfer

    plain = bundle.stage(folder / "run" / "bundle", {"train": folder / "clips" / "train.jsonl"}, None, link=True)
    start = time.monotonic()
    sent = transfer.as_flac(plain, folder / "run" / "flac")
    encoding_s = time.monotonic() - start
    wav, flac = (sum(p.stat().st_size for p in (b.root / "data").rglob("*") if p.is_file()) for b in (plain, sent))
    return {"clips": folder / "clips", "sent": sent.root / "data", "encoding_s": encoding_s,
            "wav_bytes": wav, "flac_bytes": flac}  # fmt: skip


class machine:  # noqa: N801  # reads as what it is
    """A rented machine behind the link, and the three ways to send to it."""

    def __init__(self, folder: Path) -> None:
        from tests.cloud.conftest import raise_cloud

        self.folder, self.state = folder, folder / "cloud" / "state"
        self.state.parent.mkdir()
        self.cloud = raise_cloud(self.state, "--providers", "runpod", "--seed", "7")

    def __enter__(self) -> machine:
        try:
            self._rent()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        from tests.cloud.conftest import command

        if hasattr(self, "host"):
            self.host.close()
        command(self.state, "down")

    def _rent(self) -> None:
        import runpod

        from launcher.clock import SystemClock
        from launcher.hosts.lease_keys import Address, LeaseKeys
        from launcher.hosts.rented import rented_host
        from tests.cloud.conftest import until

        os.environ["RUNPOD_API_BASE_URL"] = self.cloud.url
        runpod.api_key = self.cloud.env["RUNPOD_API_KEY"]
        self.keys = LeaseKeys.create(self.folder / "keys")
        env = {"PUBLIC_KEY": f"{self.keys.public}\n{self.cloud.public_key}"}
        pod = runpod.create_pod("upload", "i", "NVIDIA L40S", cloud_type="SECURE", ports="22/tcp", env=env)["id"]
        door = until(lambda: runpod.get_pod(pod)["runtime"])["ports"][0]
        self.ip, self.port = str(door["ip"]), int(door["publicPort"])
        until(lambda: self.cloud.opens(self.ip, self.port))
        self.cloud.fault("slow_link", provider="runpod", machine=pod, mbit=MBIT, delay_ms=ROUND_TRIP_MS / 2)
        self.host = rented_host(Address(self.ip, self.port), self.keys, "upload", SystemClock())
        self.host.put(ROOT / "recipes", "code/recipes")  # as the launcher sends the code before the data

    def received(self) -> int:
        """Bytes that have reached the machine."""
        said = self.cloud.ssh(self.ip, self.port, "cat /sys/class/net/eth0/statistics/rx_bytes")
        return int(said.stdout)

    def timed(self, name: str, made: dict[str, Any], target: str) -> tuple[float, int]:
        """(seconds, bytes received) of one of the three."""
        self.host.running_steps()  # the connection stands
        before = self.received()
        start = time.monotonic()
        if name == "ours":
            self.host.put(made["sent"], target)
            seconds = time.monotonic() - start
        elif name == "rsync":
            ssh = " ".join(["ssh", *self.cloud.ssh_options(self.port)])
            argv = ["rsync", "-az", "-e", ssh, f"{made['clips']}/", f"root@{self.ip}:/root/{target}"]
            subprocess.run(argv, check=True)
            seconds = time.monotonic() - start
        else:
            home = self.folder / "sky-home"
            home.mkdir(exist_ok=True)
            env = {**os.environ, "HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
            argv = [sys.executable, "-c", SKY, self.ip, str(self.port), str(self.cloud.key), str(made["clips"])]
            argv.append(f"/root/{target}")
            said = subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout
            seconds = float(said.strip().splitlines()[-1])
        return seconds, self.received() - before


if __name__ == "__main__":
    sys.exit(main())
