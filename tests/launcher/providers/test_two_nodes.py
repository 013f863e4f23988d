"""Two machines as one job: SkyPilot's gang start, Lightning's DDP over gloo, the same weights on both.

SkyPilot 0.14.1 refuses several nodes at RunPod (sky/clouds/runpod.py), and so does the launcher. That check is lifted
here, in this test's own copy of the plugin and nowhere else: the simulated RunPod is the only cloud at hand, and what
is tested is the way from SkyPilot's environment to Lightning's, which is the same at the clouds that allow it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from launcher.clock import SystemClock
from launcher.home import Home
from launcher.hosts.lease_keys import LeaseKeys
from launcher.providers.skypilot.lodging import Lodging
from launcher.providers.skypilot.server import Server
from tests.cloud import catalog, image
from tests.cloud.conftest import Standing, command, raise_cloud
from tests.patience import until

pytestmark = [pytest.mark.root, pytest.mark.nemo]
PATIENCE_S = 600.0
LIFTED = """
from sky.clouds import RunPod, cloud
RunPod._CLOUD_UNSUPPORTED_FEATURES.pop(cloud.CloudImplementationFeatures.MULTI_NODE, None)
"""
# Each node starts from other weights and learns other data: what they end with can be equal through DDP alone.
TRAIN = """
import hashlib, os, torch, lightning.pytorch as pl
rank = int(os.environ["NODE_RANK"])
torch.manual_seed(rank)
class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)
    def training_step(self, batch, _):
        return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)
def told(model):
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
model, x = Line(), torch.randn(64, 8)
before = told(model)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)
trainer = pl.Trainer(accelerator="cpu", devices=1, num_nodes=2, strategy="ddp", max_epochs=2, logger=False,
                     enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False)
trainer.fit(model, data)
open(os.path.expanduser("~/told"), "w").write(f"{trainer.world_size} {trainer.global_rank} {before} {told(model)}")
"""
RUN = """
export MASTER_ADDR=$(echo "$SKYPILOT_NODE_IPS" | head -n 1) MASTER_PORT=29500
export NODE_RANK=$SKYPILOT_NODE_RANK LOCAL_RANK=0 GLOO_SOCKET_IFNAME=eth0 OMP_NUM_THREADS=1
cat >~/train.py <<'END'
{train}
END
{python} ~/train.py
"""


@pytest.fixture(scope="module")
def standing(recipe_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A cloud whose machines have the recipes' environment, as an image would."""
    ask = [str(recipe_python), "-c", "import sys; print(sys.prefix); print(sys.base_prefix)"]
    places = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()
    binds = [part for place in dict.fromkeys(places) for part in ("--bind", place)]
    state = tmp_path_factory.mktemp("cloud") / "state"
    try:
        yield raise_cloud(state, "--seed", "3", "--providers", "runpod", "--layer", str(image.ensure()), *binds)
    finally:
        assert command(state, "down").returncode == 0


@pytest.fixture
def server(standing: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, value in standing.env.items():
        if name.startswith("RUNPOD_"):
            monkeypatch.setenv(name, value)
    home = Home(tmp_path / "home").ensure()
    catalog.place(home.root)
    clock = SystemClock()
    held = Lodging(home, "runpod", "two-nodes", clock)
    held.prepare(LeaseKeys.create(home.root / "keys"))
    plugin = held.folder / "plugin" / "nothing_uploaded.py"
    plugin.write_text(plugin.read_text() + LIFTED)
    found = Server(held, clock)
    try:
        found.start()
        found.prove()
        yield found
    finally:
        held.remove()
        standing.fault("end_all")


def test_two_pods_train_as_one_and_end_with_the_same_weights(
    standing: Standing, server: Server, recipe_python: Path, tmp_path: Path
) -> None:
    task = {
        "num_nodes": 2, "run": RUN.format(train=TRAIN, python=recipe_python.parent.resolve() / recipe_python.name),
        "resources": {"instance_type": "1x_L40S_SECURE", "use_spot": False, "disk_size": 20,
                      "autostop": {"idle_minutes": 30, "down": True, "wait_for": "none"}},
    }  # fmt: skip
    answer = server.send("launch", PATIENCE_S, task=task, cluster="two-nodes", cloud="runpod", region="US")
    assert "request" in answer, answer
    until(lambda: server.state_of(answer["request"]) in ("SUCCEEDED", "FAILED"), PATIENCE_S)
    assert server.state_of(answer["request"]) == "SUCCEEDED", server.send("outcome", 120, request=answer["request"])

    pods = [row for row in standing.bill()["machines"] if row["ended"] is None]
    assert sorted(row["label"].rsplit("-", 1)[1] for row in pods) == ["head", "worker"]
    told = sorted(until(partial(said, standing, row["id"], tmp_path), PATIENCE_S).split() for row in pods)
    assert [(world, rank) for world, rank, *_ in told] == [("2", "0"), ("2", "1")]
    (_, _, first_before, first), (_, _, second_before, second) = told
    assert first == second and len({first_before, second_before, first}) == 3


def said(standing: Standing, pod: str, tmp_path: Path) -> str:
    """What a pod's training wrote at its end."""
    ports = "runtime { ports { ip privatePort publicPort } }"
    query = {"query": f'query {{ pod(input: {{podId: "{pod}"}}) {{ {ports} }} }}'}
    held = {"Authorization": f"Bearer {standing.env['RUNPOD_API_KEY']}"}
    reply = requests.post(f"{standing.url}/graphql", json=query, timeout=10, headers=held).json()
    door = next(port for port in reply["data"]["pod"]["runtime"]["ports"] if port["privatePort"] == 22)
    key = tmp_path / "home" / "keys" / "key"
    options = standing.ssh_options(door["publicPort"])
    options[options.index("-i") + 1] = str(key)
    done = subprocess.run(["ssh", *options, f"root@{door['ip']}", "cat told"], capture_output=True, text=True,
                          check=False, timeout=60)  # fmt: skip
    return done.stdout
