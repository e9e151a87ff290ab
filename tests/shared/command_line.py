"""Running `minillm ...` in a test, in this process, and a training run that takes no time."""

from minillm.commands import cli

TINY = ["--config", "debug", "--set", "train.max_steps=6", "--set", "train.eval_every=3", "--set", "train.save_every=2"]


def minillm(*arguments, status=0, capsys=None):
    """Run a command line in this process; returns what it printed, after checking the exit status."""
    assert cli.main([str(a) for a in arguments]) == status
    if capsys is None:
        return ""
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err
