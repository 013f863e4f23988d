"""Rows about what is rented and what it is told: prices that were not shown, keys of other accounts."""

from __future__ import annotations

import re
import secrets
import time
from pathlib import Path
from typing import Any

from bench.leaks.ours import Ours, end_of
from bench.leaks.plain import Plain
from bench.leaks.row import DOWN, WORK, WORK_S, ended, gone, last_lines, last_step, told, wait
from bench.leaks.side import Seen, Side, until

_APPROVED = ("max_usd_per_hour", "instead_usd_per_hour")


# -- the cheapest offer is sold out ----------------------------------------------------------------------------------


def sell_out(side: Side) -> None:
    side.cloud.fault("sold_out", provider="runpod", count="always", offer="NVIDIA GeForce RTX 4090", listed=True)


def plain_sold(plain: Plain) -> Seen:
    sell_out(plain.side)
    cards = [{"accelerators": "RTX4090:1"}, {"accelerators": "L40S:1"}]
    process = plain.launch(WORK, *DOWN, resources={"infra": "runpod", "disk_size": 50, "any_of": cards})
    code = wait(process)
    return Seen("sky launch --down -i 1 (any_of: RTX4090, L40S)", code, last_lines(plain.log), time.time(),
                {"shown_usd_per_hour": chosen_price(plain.log), **rented(plain.side)})  # fmt: skip


def ours_sold(ours: Ours) -> Seen:
    sell_out(ours.side)
    code, outcome, err = ours.run(ours.job("providers: [runpod], via: skypilot, gpus: [RTX 4090, L40S]"))
    needed = last_step(ours) if code == 0 else time.time()
    facts = {**approved(ours), **rented(ours.side)}
    return Seen("launcher run (gpus: [RTX 4090, L40S])", code, told(code, outcome, err), needed, facts)


def chosen_price(log: str) -> str:
    """The price an hour of what SkyPilot's table says that it has chosen."""
    found = re.search(r"(\d+\.\d+)\s+✔", log)
    assert found, log[-1500:]
    return found[1]


def approved(ours: Ours) -> dict[str, Any]:
    """The rate that was shown for the machine that was chosen, and the most that was approved for any."""
    plan = ours.plan()
    choice = plan["candidates"][plan["chosen"]]
    return {"shown_usd_per_hour": str(choice["offer"]["usd_per_hour"]),
            "most_usd_per_hour": str(max(float(plan["allowed"][name]) for name in _APPROVED))}  # fmt: skip


def rented(side: Side) -> dict[str, Any]:
    """The rates that the cloud bills, of each machine."""
    return {"rented_usd_per_hour": [str(row["usd_per_hour"]) for row in side.rows()]}


def no_dearer(record: dict[str, Any]) -> str:
    """No machine bills more an hour than what was approved, by default what was shown; and gone."""
    facts = record["facts"]
    most = float(facts.get("most_usd_per_hour") or facts["shown_usd_per_hour"])
    dear = [rate for rate in facts["rented_usd_per_hour"] if float(rate) > most + 0.005]
    if dear:
        return f"shown ${facts['shown_usd_per_hour']}/h, rented at ${dear[0]}/h"
    return gone(record)


# -- what Vast is rented at ------------------------------------------------------------------------------------------

_DEAR = (("20000001", "0.71", 150.0), ("20000002", "0.40", 60.0))  # by Vast's score the dearer one comes first
_ROWS = ", ".join(
    f"{{id = {number}, gpu = 'RTX 4090', gpu_ram_mb = 24564, usd = '{usd}', disk_usd_gb_month = '0.15', "
    f"geolocation = 'Saxony, DE', reliability = 0.9962, inet_down = 914.7, inet_up = 823.4, hosting_type = 1, "
    f"dlperf = {dlperf}}}"
    for number, usd, dlperf in _DEAR
)
MARKET = ("--set", f"vast.offers = [{_ROWS}]")


def plain_vast(plain: Plain) -> Seen:
    plain.use_vast("0.40")
    asked = {"infra": "vast", "accelerators": "RTX4090:1", "disk_size": 60, "max_hourly_cost": 0.5}
    process = plain.launch(WORK, *DOWN, resources=asked)
    plain.side.first(process)  # what it bills is known by now; the rest of the launch is other rows'
    facts = {"shown_usd_per_hour": chosen_price(plain.log), **rented(plain.side)}
    did = "sky launch --down -i 1 (vast, max_hourly_cost: 0.5), until the machine bills"
    return Seen(did, None, last_lines(plain.log, 1), time.time(), facts)


def ours_vast(ours: Ours) -> Seen:
    code, outcome, err = ours.run(ours.job("providers: [vast], via: direct, gpus: [RTX 4090]"))
    needed = last_step(ours) if code == 0 else time.time()
    facts = {**approved(ours), **rented(ours.side)}
    return Seen("launcher run (vast, directly)", code, told(code, outcome, err), needed, facts)


# -- what the account's keys are doing on the host -------------------------------------------------------------------

_PLACES = "/root /home /etc /tmp /var /run /opt /srv /mnt /workspace"
_SEARCH = f"""keys=$(cat)
grep -raoFH -f <(echo "$keys") --devices=skip {_PLACES} 2>/dev/null
grep -aoFH -f <(echo "$keys") $(ls -d /proc/[0-9]*/environ /proc/[0-9]*/cmdline) 2>/dev/null; true"""


def plant(home: Path) -> dict[str, str]:
    """Keys of someone who uses several clouds, where their command lines keep them: each key by its name."""
    keys = {name: f"planted-{name}-{secrets.token_hex(12)}" for name in ("aws", "vast", "lambda", "hf", "gcp")}
    files = {
        ".aws/credentials": f"[default]\naws_access_key_id = {keys['aws']}\naws_secret_access_key = {keys['aws']}\n",
        ".config/vastai/vast_api_key": keys["vast"], ".lambda_cloud/lambda_keys": f"api_key = {keys['lambda']}\n",
        ".cache/huggingface/token": keys["hf"],
        ".config/gcloud/application_default_credentials.json": f'{{"client_secret": "{keys["gcp"]}"}}',
    }  # fmt: skip
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")
    return keys


def found_on(side: Side, machine: str, keys: dict[str, str]) -> dict[str, list[str]]:
    """Which keys are in a file or in a process's environment or arguments there, and where."""
    assert "shown" in side.inside(machine, _SEARCH, stdin="RUNPOD_POD_ID=").replace("RUNPOD_POD_ID=", "shown")
    lines = side.inside(machine, _SEARCH, stdin="\n".join(keys.values())).splitlines()
    places: dict[str, set[str]] = {}
    for path, _, text in (line.partition(":") for line in lines):
        name = next((name for name, key in keys.items() if key == text), None)
        if name:
            places.setdefault(name, set()).add(re.sub(r"/proc/\d+/", "/proc/PID/", path))
    return {name: sorted(held)[:4] for name, held in sorted(places.items())}


def plain_secrets(plain: Plain) -> Seen:
    keys = plant(plain.home) | {"runpod": plain.side.env["RUNPOD_API_KEY"]}
    process = plain.launch(f"touch /root/began; sleep {4 * WORK_S}; {WORK}", *DOWN)
    machine = plain.side.first(process)
    until(lambda: plain.side.inside(machine, "ls /root/began 2>/dev/null"))
    own = next(plain.home.glob(".sky/clients/*/ssh/sky-key")).read_text(encoding="utf-8").splitlines()[2]
    found = found_on(plain.side, machine, keys | {"the ssh key of all clusters": own})
    at = ended(plain.side, machine)
    code = wait(process, 120)
    return Seen("sky launch --down -i 1, from a home with keys of five other clouds", code, last_lines(plain.log), at,
                {"keys_found": found})  # fmt: skip


def ours_secrets(ours: Ours) -> Seen:
    home = ours.root.parent / "user"
    keys = plant(home) | {"runpod": ours.side.env["RUNPOD_API_KEY"]}
    env = {"HOME": str(home), "AWS_SECRET_ACCESS_KEY": keys["aws"], "HF_TOKEN": keys["hf"]}
    process = ours.start(ours.job(evaluate_s=2 * WORK_S), **env)
    machine = ours.side.first(process)
    until(lambda: ours.side.inside(machine, "ls /tmp/trace.jsonl 2>/dev/null"))
    own = next(ours.root.glob("runs/*/keys/*/key")).read_text(encoding="utf-8").splitlines()[2]
    found = found_on(ours.side, machine, keys | {"the lease's ssh key": own})
    code, outcome, err = end_of(process)
    return Seen("launcher run, from the same home", code, told(code, outcome, err), last_step(ours),
                {"keys_found": found})  # fmt: skip


def no_key(record: dict[str, Any]) -> str:
    """Not one of the planted keys was on the machine."""
    found = record["facts"]["keys_found"]
    return f"on the machine: {', '.join(found)}" if found else ""
