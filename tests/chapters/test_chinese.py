"""The Chinese sentences are what their data card says."""

from minillm.workshop.chinese import chinese_text


def characters(text):
    return text.replace("\n", "")


def test_sizes_of_the_card():
    train, val = chinese_text("train"), chinese_text("val")
    assert (len(train.splitlines()), len(characters(train))) == (243, 4729)
    assert (len(val.splitlines()), len(characters(val))) == (44, 838)


def test_each_line_is_a_sentence_of_its_own():
    lines = (chinese_text("train") + chinese_text("val")).splitlines()
    assert len(set(lines)) == len(lines)
    assert all(line.endswith(("。", "？", "！")) and line == line.strip() for line in lines)
    assert not [line for line in lines if any(ord(c) < 0x3000 or ord(c) >= 0xFF00 for c in line if c not in "，？：！")]


def test_held_out_sentences_are_others():
    train, val = chinese_text("train"), chinese_text("val")
    shared = {line[i : i + 10] for line in val.splitlines() for i in range(len(line) - 9)}
    assert not [run for run in shared if run in train]
    assert len(set(val) - set(train)) == 28
