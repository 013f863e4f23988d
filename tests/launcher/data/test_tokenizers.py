from __future__ import annotations

import io
import json
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.data.sentencepieces import Charsmap, PiecesError, read_model
from launcher.data.tokenizers import describe, load_tokenizer
from launcher.errors import BadInputError


def field(number: int, value: bytes | int) -> bytes:
    """One protocol-buffer field (lengths below 128 are enough here)."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def model(letters: str, *more: bytes, kind: int = 1) -> bytes:
    """A SentencePiece model whose pieces are single letters."""
    unknown = field(1, field(1, b"<unk>") + field(3, 2))
    pieces = b"".join(field(1, field(1, c.encode()) + field(3, kind)) for c in letters)
    return unknown + pieces + b"".join(more)


def nemo(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_nemo_file_gives_its_tokenizer_without_being_unpacked(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = nemo(
        tmp_path / "m.nemo",
        {
            "./model_config.yaml": b"tokenizer: {type: bpe}",
            "../../evil_tokenizer.model": model("abc▁"),
            "model_weights.ckpt": b"never read",
        },
        mode,
    )
    assert load_tokenizer(path).missing("a cab") == ""
    assert load_tokenizer(path).missing("a xylophone") == "xylophne"
    assert [p.name for p in tmp_path.rglob("*")] == ["here", "m.nemo"]


def test_a_character_model_is_read_from_its_labels_and_lower_cases(tmp_path: Path) -> None:
    path = nemo(tmp_path / "m.nemo", {"model_config.yaml": b'labels: [" ", a, b, "\'"]'})
    assert load_tokenizer(path).missing("A b'a c") == "c"


def test_one_of_several_tokenizers_must_have_all_of_a_word(tmp_path: Path) -> None:
    path = nemo(tmp_path / "m.nemo", {"en_tokenizer.model": model("ab▁"), "ru_tokenizer.model": model("жя▁")})
    assert load_tokenizer(path).missing("ab жя") == ""
    assert load_tokenizer(path).missing("aж") != ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.txt", "<unk>\n[PAD]\nab\n##c\n"),
        ("tokens.txt", "<unk> 0\n▁ab 1\nc 2\n<blk> 3\n"),
        ("tokenizer.vocab", "<unk>\t0\n▁ab\t-1\nc\t-2\n"),
    ],
)
def test_lists_of_tokens_are_read(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert load_tokenizer(tmp_path / name).missing("cab back") == "k"


def test_pieces_only_control_or_unused_write_nothing() -> None:
    assert read_model(model("a▁") + model("b", kind=3) + model("c", kind=5)).missing("abc") == "bc"


def test_a_byte_fallback_model_writes_everything() -> None:
    assert read_model(model("a▁", field(2, field(35, 1)))).missing("жя") == ""


def test_a_letter_that_only_stands_in_longer_pieces_counts_where_they_fit() -> None:
    pieces = read_model(model("a▁", field(1, field(1, b"qu") + field(3, 1))))
    assert pieces.missing("aqua") == ""
    assert pieces.missing("qa") == "q"


@pytest.mark.parametrize(
    "content", [b"", b"hello there", b"PK\x03\x04" * 20, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("name", ["m.model", "m.nemo"])
def test_what_is_no_tokenizer_is_one_clear_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInputError, match="--tokenizer: not a"):
        load_tokenizer(tmp_path / name)
    with pytest.raises(BadInputError, match="cannot be read"):
        load_tokenizer(tmp_path / "absent.model")


def test_yaml_in_a_nemo_cannot_run_code(tmp_path: Path) -> None:
    bomb = b"!!python/object/apply:os.system ['touch /tmp/never']"
    with pytest.raises(BadInputError, match=r"not a \.nemo"):
        load_tokenizer(nemo(tmp_path / "m.nemo", {"model_config.yaml": bomb}))


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader_of_models(data: bytes) -> None:
    with suppress(PiecesError):
        read_model(data).missing("hello")


@given(st.binary(max_size=80), st.text(max_size=20))
def test_no_normalisation_table_crashes_the_reader(blob: bytes, text: str) -> None:
    sized = (len(blob) // 4 * 4 // 2 // 4 * 4).to_bytes(4, "little") + blob
    with suppress(PiecesError):
        Charsmap(sized).normalise(text)


def test_characters_are_described_so_that_they_can_be_told_apart() -> None:
    assert describe("ж") == "'ж' (CYRILLIC SMALL LETTER ZHE)"
    assert describe("abcde").endswith("and 2 more")


ORACLE = """
import io, json, random, sys
import sentencepiece
texts = ["the quick brown fox jumps over the lazy dog", "take 500 mg twice daily", "naïve café über straße"] * 20
draw = random.Random(1)
letters = "abcdefghijklmnopqrstuvwxyz ABCÉéüßñжя日本½ﬁ①²™ \\u0301\\u00a0\\u200b,.-'’“—０１Ａｂ\\u3000ｶﾞ한\\t"
probes = ["".join(draw.choices(letters, k=draw.randint(1, 8))) for _ in range(2000)]
unknown = {}
for name, more in {
    "bpe": {"model_type": "bpe", "vocab_size": 120},
    "unigram": {"model_type": "unigram", "vocab_size": 60},
    "identity": {"model_type": "bpe", "vocab_size": 120, "normalization_rule_name": "identity"},
    "casefold": {"model_type": "bpe", "vocab_size": 100, "normalization_rule_name": "nmt_nfkc_cf"},
    "symbols": {"model_type": "bpe", "vocab_size": 120, "user_defined_symbols": ["<x>", "ж日"]},
    "bytes": {"model_type": "bpe", "vocab_size": 400, "byte_fallback": True},
}.items():
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, character_coverage=1.0, hard_vocab_limit=False,
        minloglevel=2, **more)
    with open(f"{sys.argv[1]}/{name}.model", "wb") as file:
        file.write(out.getvalue())
    engine = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    unknown[name] = [engine.unk_id() in engine.encode(probe) for probe in probes]
print(json.dumps({"probes": probes, "unknown": unknown}))
"""


@pytest.mark.nemo
def test_it_says_unknown_exactly_where_sentencepiece_itself_does(tmp_path: Path, recipe_python: Path) -> None:
    ran = subprocess.run(
        [recipe_python, "-c", ORACLE, tmp_path], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    said = json.loads(ran.stdout)
    for name, unknown in said["unknown"].items():
        ours = load_tokenizer(tmp_path / f"{name}.model")
        differs = [p for p, u in zip(said["probes"], unknown, strict=True) if bool(ours.missing(p)) != u]
        assert differs == [], name
