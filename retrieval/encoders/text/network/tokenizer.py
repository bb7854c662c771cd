"""SigLIP's own tokenizer, a SentencePiece model behind a few rules, in the form that `tokenizers` reads."""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers.convert_slow_tokenizer import import_protobuf

from retrieval.errors import EncoderError

_UNIGRAM = 1  # SentencePiece's number for this kind of model
_SPACE = "▁"  # SentencePiece's sign for it
_PUNCTUATION = r"[!-/:-@\[-`{-~]"  # of ASCII, as SigLIP removes it


def as_fast(tokenizer: Any) -> Tokenizer:
    """The same tokenizer for `tokenizers`; raises EncoderError for one of another kind than SigLIP's."""
    stored = sentence_pieces(tokenizer)
    if type(tokenizer).__name__ != "SiglipTokenizer" or stored.trainer_spec.model_type != _UNIGRAM:
        raise EncoderError(f"its tokenizer is a {type(tokenizer).__name__}, which cannot be exported")
    pieces = [(piece.piece, piece.score) for piece in stored.pieces]
    spec = stored.trainer_spec
    made = Tokenizer(Unigram(pieces, unk_id=spec.unk_id, byte_fallback=spec.byte_fallback))
    made.normalizer = normalizers.Sequence(_steps(stored, lower=tokenizer.do_lower_case))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always", split=False)
    end = tokenizer.eos_token
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    return made


def sentence_pieces(tokenizer: Any) -> Any:
    """The SentencePiece model of a tokenizer, as a message; raises EncoderError if it has none."""
    if (pieces := getattr(tokenizer, "sp_model", None)) is None:
        raise EncoderError(f"its tokenizer is a {type(tokenizer).__name__}, which is not supported")
    stored = import_protobuf().ModelProto()
    stored.ParseFromString(pieces.serialized_model_proto())
    return stored


def _steps(stored: Any, *, lower: bool) -> list[Any]:
    """Capitals, punctuation and spaces as SigLIP's rules say, then the model's own table of characters."""
    steps: list[Any] = [normalizers.Lowercase()] if lower else []
    steps += [normalizers.Replace(Regex(_PUNCTUATION), ""), normalizers.Replace(_SPACE, " ")]
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    if table := stored.normalizer_spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(table))
    # Last, as signs without width become spaces in that table.
    return [*steps, normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(left=False)]
