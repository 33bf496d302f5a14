"""BERTs with random weights, as folders that thema and sentence-transformers both load, in float16.

    python random_encoders.py SHAPES.json FOLDER

SHAPES is an object of [hidden, layers, heads, intermediate] by name; each becomes FOLDER/NAME. The vocabulary is of
random words: a text of n of them has n tokens beside [CLS] and [SEP].
"""

import json
import os
import random
import sys

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

shapes, root = json.load(open(sys.argv[1])), sys.argv[2]
special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
dice = random.Random(0)
vocabulary = {word: i for i, word in enumerate(special)}
while len(vocabulary) < (30_522 if max(s[0] for s in shapes.values()) >= 384 else 500):
    word = "".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 7)))
    vocabulary.setdefault(word, len(vocabulary))
tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)

for name, (hidden, layers, heads, intermediate) in shapes.items():
    folder = f"{root}/{name}"
    if os.path.exists(f"{folder}/ready"):
        continue
    os.makedirs(f"{folder}/1_Pooling", exist_ok=True)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=512,
    )
    BertModel(config).half().save_pretrained(folder)
    tokenizer.save(f"{folder}/tokenizer.json")
    names = dict(zip(["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"], special))
    # Only what both read: a fast tokenizer as it stands in tokenizer.json.
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **names}
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    pooling = {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True}
    for file, content in [
        ("tokenizer_config.json", kind),
        ("modules.json", modules),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False}),
    ]:
        json.dump(content, open(f"{folder}/{file}", "w"))
    os.makedirs(f"{folder}/2_Normalize", exist_ok=True)
    open(f"{folder}/ready", "w").close()
    print(name, flush=True)
