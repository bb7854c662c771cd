"""Text models made with `transformers`: real but tiny architectures, random weights, real tokenizers."""

import io
import json

import sentencepiece
import torch
from safetensors.torch import load_file, save_file
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


def write_image_tower(folder, clip):
    """Write the image tower of the CLIP in the folder `clip` as a timm network; returns the folder."""
    state = load_file(clip / "model.safetensors")
    folder.mkdir(parents=True)
    save_file(dict(_in_timm(state)), folder / "model.safetensors", metadata={"format": "pt"})
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 1.5, "img_size": 32, "patch_size": 8}
    means = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    stated = {"tag": "openai", "num_classes": 24, "classifier": "head", "input_size": [3, 32, 32], **means}
    config = {"architecture": "vit_base_patch32_clip_quickgelu_224", "num_classes": 24, "model_args": sizes}
    (folder / "config.json").write_text(json.dumps({**config, "pretrained_cfg": stated}))
    return folder


def _in_timm(state):
    """The image tower's weights under timm's names; timm has one matrix for queries, keys and values."""
    tower = {name.removeprefix("vision_model."): each for name, each in state.items() if "visi" in name}
    yield "cls_token", tower["embeddings.class_embedding"][None, None]
    yield "pos_embed", tower["embeddings.position_embedding.weight"][None]
    yield "patch_embed.proj.weight", tower["embeddings.patch_embedding.weight"]
    yield "head.weight", state["visual_projection.weight"]
    yield "head.bias", torch.zeros(24)
    for kind in ("weight", "bias"):
        yield f"norm_pre.{kind}", tower[f"pre_layrnorm.{kind}"]
        yield f"norm.{kind}", tower[f"post_layernorm.{kind}"]
        for layer in range(2):
            one, other = f"encoder.layers.{layer}", f"blocks.{layer}"
            yield (
                f"{other}.attn.qkv.{kind}",
                torch.cat([tower[f"{one}.self_attn.{each}_proj.{kind}"] for each in "qkv"]),
            )
            yield f"{other}.attn.proj.{kind}", tower[f"{one}.self_attn.out_proj.{kind}"]
            for number in "12":
                yield f"{other}.norm{number}.{kind}", tower[f"{one}.layer_norm{number}.{kind}"]
                yield f"{other}.mlp.fc{number}.{kind}", tower[f"{one}.mlp.fc{number}.{kind}"]


def sentence_pieces(*more, **options):
    """The bytes of a SentencePiece model trained on SENTENCES and these sentences."""
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*SENTENCES, *more]), model_writer=pieces, vocab_size=60, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, **options,
    )  # fmt: skip
    return pieces.getvalue()


def _written(folder, kind, config, processor):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
