"""The language: sentences in, word features out, each sentence once; and how pixels read words.

A text encoder is any object (no nn.Module: its weights are none of the model's) that is called with a list of sentences
and gives features (B, L, D) with start and end token, and a mask (B, L) bool, True = filled up.
"""
import functools
import zlib
from dataclasses import dataclass

import torch
from torch import nn

from models.cma.positions import word_code

KEPT = 20_000              # sentences whose features stay, 30 KB each
GET_TRANSFORMERS = ("text.encoder: {name} needs the package transformers: pip install transformers, or try without it "
                    "by text.encoder=tiny, which knows no word.")
GET_WEIGHTS = ("text.encoder: no RoBERTa could be read from {name}: {why}\n  Name a model of huggingface.co and have a "
               "network, or a local folder that save_pretrained wrote (model.safetensors and the tokenizer's files)")


@dataclass
class Words:
    """features (1, L, C) of a sentence after the resizer; keys: the same with their positions"""
    features: torch.Tensor
    keys: torch.Tensor


class TinyWords:
    """A stand-in without a file: each word is a vector drawn from its letters, beside one drawn from its place.

    Equal words have equal vectors; no word is like another, so that a word that training never had says nothing.
    """

    def __init__(self, dim=768):
        self.dim = dim

    def __call__(self, sentences):
        rows = [["<s>", *sentence.split(), "</s>"] for sentence in sentences]
        longest = max(map(len, rows))
        features = torch.zeros(len(rows), longest, self.dim)
        for feature, row in zip(features, rows, strict=True):
            for place, word in enumerate(row):
                feature[place] = 0.5 * self.draw(f"token/{word}") + 0.1 * self.draw(f"position/{place}")
        count = torch.tensor([len(row) for row in rows])
        return features, torch.arange(longest) >= count[:, None]

    def draw(self, name):
        return torch.randn(self.dim, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


class RobertaWords:
    """RoBERTa by its name or folder, frozen, on the CPU; loaded when the first sentence comes. No pickle is read.

    dropout: released, it stays in training mode
    """

    def __init__(self, name, dropout=False):
        self.name, self.dropout, self.parts = name, dropout, None

    def load(self):
        """ValueError: no transformers, or no such model"""
        if self.parts is None:
            try:
                from transformers import AutoTokenizer, RobertaModel
            except ImportError:
                raise ValueError(GET_TRANSFORMERS.format(name=self.name)) from None
            for local in (True, False):      # without a network, what is there already is found at once
                try:
                    self.parts = (AutoTokenizer.from_pretrained(self.name, local_files_only=local),
                                  RobertaModel.from_pretrained(self.name, local_files_only=local, use_safetensors=True,
                                                               add_pooling_layer=False).train(self.dropout))
                    return
                except OSError as error:
                    why = error
            raise ValueError(GET_WEIGHTS.format(name=self.name, why=str(why)[:200]))

    @torch.no_grad()
    def __call__(self, sentences):
        self.load()
        tokenizer, network = self.parts
        limit = network.config.max_position_embeddings - network.config.pad_token_id - 1
        given = tokenizer(sentences, padding="longest", truncation=True, max_length=limit, return_tensors="pt")
        found = network(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
        return found.last_hidden_state, given["attention_mask"] == 0


class Resizer(nn.Module):
    """Word features (1, L, D)  ->  (1, L, C)"""

    def __init__(self, inputs, dim, dropout):
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(inputs, dim), nn.LayerNorm(dim, eps=1e-12), nn.Dropout(dropout)

    def forward(self, features):
        return self.dropout(self.norm(self.linear(features)))


class SentenceReader:
    """Sentences  ->  what the text encoder says of them, (1, L, D) on the CPU; a sentence that comes back is known.

    encoder: may be replaced; keep: False where it says something else each time
    """

    def __init__(self, encoder, keep=True):
        self.encoder = encoder
        self.read = functools.lru_cache(KEPT if keep else 0)(self.read_once)

    def read_once(self, sentence):
        with torch.inference_mode(False), torch.no_grad():       # a training after a validation reads the same
            features, mask = self.encoder([sentence])
            return torch.as_tensor(features)[0][~torch.as_tensor(mask)[0].bool()][None]

    def __call__(self, sentence):
        return self.read(" ".join(sentence.lower().split()))


def place_words(features):
    """(1, L, C)  ->  Words"""
    code = word_code(features.shape[1], features.shape[2], features.device)
    return Words(features, features + code.to(features.dtype))


class WordAttention(nn.MultiheadAttention):
    """Multi-head attention of many pixels to few words: the projections of pixels and output move to the words' side.

    queries (N, P, C), words  ->  (N, P, C). The numbers are those of nn.MultiheadAttention; with L words and h heads a
    pixel costs h L C products twice, where its own two projections alone would be 2 C C.
    """

    def forward(self, queries, words):
        to_query, to_key, to_value = self.in_proj_weight.chunk(3)
        query_bias, key_bias, value_bias = self.in_proj_bias.chunk(3)
        heads, dim = self.num_heads, self.embed_dim
        keys = nn.functional.linear(words.keys[0], to_key, key_bias).unflatten(1, (heads, -1))            # (L, h, d)
        values = nn.functional.linear(words.features[0], to_value, value_bias).unflatten(1, (heads, -1))
        keys = keys * (dim // heads) ** -0.5
        read = torch.einsum("lhd,hdc->hlc", keys, to_query.unflatten(0, (heads, -1)))
        bias = torch.einsum("lhd,hd->hl", keys, query_bias.unflatten(0, (heads, -1)))
        write = torch.einsum("lhd,chd->hlc", values, self.out_proj.weight.unflatten(1, (heads, -1)))
        scores = nn.functional.linear(queries, read.flatten(0, 1), bias.flatten()).unflatten(2, (heads, -1))
        weights = nn.functional.dropout(scores.softmax(-1), self.dropout, self.training).flatten(2)
        return weights @ write.flatten(0, 1) + self.out_proj.bias
