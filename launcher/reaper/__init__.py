"""L2, the reaper: ends what is ours and should be gone, from any machine that has the providers' keys.

books.py    frees what dead launchers hold in the ledger; asks no provider
labels.py   what a machine's label says without a ledger: whose, which run, until when
sweep.py    ledger against providers, with proof and with a limit
behind.py   a sweep in the background, at the start of every verb that rents
alarm.py    tells people when something may still bill
timer.py    runs it on a timer: systemd, launchd or cron
"""

from launcher.reaper.books import GRACE, Fact, reap_quietly
from launcher.reaper.labels import MARGIN, NOBODY, Over
from launcher.reaper.sweep import MOST, Reaped, reap

__all__ = ["GRACE", "MARGIN", "MOST", "NOBODY", "Fact", "Over", "Reaped", "reap", "reap_quietly"]
