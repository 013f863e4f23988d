"""What runner and verbs import sooner or later."""

import fabric  # noqa: F401

import launcher.cli.reap
import launcher.cli.resume
import launcher.providers.brev
import launcher.providers.runpod
import launcher.providers.vast
import launcher.reaper
import launcher.report.after_run
import launcher.runner.__main__
import launcher.watchdog  # noqa: F401
