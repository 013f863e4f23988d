"""For tests alone, on PYTHONPATH: lifts the checks by which several machines as one job are refused at RunPod.

SkyPilot 0.14.1 refuses them there (sky/clouds/runpod.py), and so does the launcher. The simulated RunPod is the only
cloud at hand that SkyPilot rents at, and the way of such a job is the same at the clouds that allow it. Python
imports this in each process of the launcher's; SkyPilot's own get it as the end of the launcher's plugin. How long
SkyPilot is waited for is lengthened besides: a busy computer needs ten times what a quiet one does for two nodes.
"""

import os
from dataclasses import replace
from pathlib import Path

if "LAUNCHER_TEST_PLUGIN" in os.environ:
    from launcher.providers import traits
    from launcher.providers.skypilot import arming, lodging, provider
    from launcher.runner import together

    lodging.PLUGIN = Path(os.environ["LAUNCHER_TEST_PLUGIN"])
    traits._TRAITS["runpod"] = replace(traits._TRAITS["runpod"], many_nodes=True)
    traits.traits_of_provider.cache_clear()
    arming.ERRAND_S = provider.ERRAND_S = provider.START_S = provider.CREATE_S = together.STARTS_S = 1200.0
