"""Text models made with `transformers`: real but tiny architectures, random weights, real tokenizers."""

import io
import json

import sentencepiece
import torch
from tokenizers import pre_tokenizers, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    SiglipTokenizer,
)

WORDS = 16  # the maximum number of tokens of the models
SENTENCES = ["a red shirt", "a blue hat", "striped green trousers", "a photo of a shoe", "0123456789 yellow dress"] * 20
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
_SEES = {**_TOWER, "image_size": 32, "patch_size": 8}


def write_clip(folder):
    """Write a CLIP with embeddings of 24 numbers; returns the folder."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    learned = CLIPTokenizer().backend_tokenizer
    letters = pre_tokenizers.ByteLevel.alphabet()
    options = {"vocab_size": 300, "special_tokens": [start, end], "end_of_word_suffix": "</w>"}
    trainer = trainers.BpeTrainer(**options, initial_alphabet=letters, show_progress=False)
    learned.train_from_iterator(SENTENCES, trainer)
    state = json.loads(learned.to_str())["model"]
    merges = [tuple(pair) for pair in state["merges"]]
    tokenizer = CLIPTokenizer(vocab=state["vocab"], merges=merges, model_max_length=WORDS)
    ends = {"bos_token_id": state["vocab"][start], "eos_token_id": state["vocab"][end]}
    reads = {**_TOWER, **ends, "pad_token_id": ends["eos_token_id"], "vocab_size": len(state["vocab"])}
    config = CLIPConfig(text_config={**reads, "max_position_embeddings": WORDS}, vision_config=_SEES, projection_dim=24)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return _written(folder, CLIPModel, config, CLIPProcessor(images, tokenizer))


def write_siglip(folder, **sees):
    """Write a SigLIP with embeddings of 32 numbers; `sees` changes its image tower. Returns the folder."""
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(sentence_pieces())
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_max_length=WORDS)
    reads = {**_TOWER, "vocab_size": 80, "max_position_embeddings": WORDS, "projection_size": 32}
    config = SiglipConfig(text_config={**reads, "bos_token_id": 1, "eos_token_id": 1}, vision_config={**_SEES, **sees})
    images = SiglipImageProcessor(size={"height": 32, "width": 32})
    return _written(folder, SiglipModel, config, SiglipProcessor(images, tokenizer))


def sentence_pieces(*more):
    """The bytes of a SentencePiece model trained on SENTENCES and these sentences."""
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*SENTENCES, *more]), model_writer=pieces, vocab_size=60, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    return pieces.getvalue()


def _written(folder, kind, config, processor):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
