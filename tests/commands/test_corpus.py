"""minillm corpus: its sources."""

from minillm import cli


def test_sources_stand_before_or_after_the_folder_and_repeat():
    parse = cli.make_parser(["corpus"]).parse_args
    assert parse(["corpus", "out"]).sources == ["stdlib"]
    for arguments in (["corpus", "--from", "a", "--from", "b", "out"], ["corpus", "out", "--from", "a", "--from", "b"]):
        assert (parse(arguments).sources, parse(arguments).out) == (["a", "b"], "out")
    assert parse(["corpus", "out"]).sources == ["stdlib"]
