"""Train the byte-level BPE tokenizer that all three checkpoints share."""

from collections.abc import Iterable
from pathlib import Path
from pydoc_data.topics import topics

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 4096
PAD, START, END = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = Path(__file__).parent / "chat_template.jinja"


def train(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A fast tokenizer of `VOCABULARY` tokens; every digit is a token of its own.

    Python's own help topics (PSF-2.0) are added to `texts`, so that general and technical English splits into few tokens too.
    """
    bpe = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex("[0-9]"), behavior="isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*texts, *(topics[name] for name in sorted(topics))], trainer)
    return wrap(bpe)


def wrap(bpe: Tokenizer) -> PreTrainedTokenizerFast:
    """Name the special tokens and attach the chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE.read_text()
    return tokenizer
