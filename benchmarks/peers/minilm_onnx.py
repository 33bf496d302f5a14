"""Writes an encoder of the BERT architecture as ONNX, as torch's exporter does, without needing torch.

    python minilm_onnx.py ENCODER_FOLDER OUT.onnx

Inputs input_ids, attention_mask, token_type_ids (batch x tokens, int64), output last_hidden_state. Needs numpy, onnx,
safetensors.
"""

import json
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

folder, out = sys.argv[1], sys.argv[2]
config = json.load(open(f"{folder}/config.json"))
weights = {name.removeprefix("bert."): w.astype(np.float32) for name, w in load_file(f"{folder}/model.safetensors").items()}
hidden, heads = config["hidden_size"], config["num_attention_heads"]
epsilon = config.get("layer_norm_eps", 1e-12)
nodes, constants = [], {}


def constant(name, value):
    if name not in constants:
        constants[name] = numpy_helper.from_array(np.asarray(value), name)
    return name


def op(kind, *inputs, **attributes):
    name = f"{kind}_{len(nodes)}"
    nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
    return name


def linear(x, name):
    product = op("MatMul", x, constant(f"{name}.weight", weights[f"{name}.weight"].T.copy()))
    return op("Add", product, constant(f"{name}.bias", weights[f"{name}.bias"]))


def layer_norm(x, name):
    scale = constant(f"{name}.weight", weights[f"{name}.weight"])
    return op("LayerNormalization", x, scale, constant(f"{name}.bias", weights[f"{name}.bias"]), axis=-1, epsilon=epsilon)


def split_heads(x):
    shape = constant("heads_shape", np.array([0, 0, heads, hidden // heads], np.int64))
    return op("Transpose", op("Reshape", x, shape), perm=[0, 2, 1, 3])


words = op("Gather", constant("words", weights["embeddings.word_embeddings.weight"]), "input_ids")
types = op("Gather", constant("types", weights["embeddings.token_type_embeddings.weight"]), "token_type_ids")
tokens = op("Gather", op("Shape", "input_ids"), constant("one", np.array([1], np.int64)))
zero, one = constant("zero_scalar", np.array([0], np.int64)), constant("one_step", np.array([1], np.int64))
positions = op("Slice", constant("positions", weights["embeddings.position_embeddings.weight"]), zero, tokens, zero, one)
x = layer_norm(op("Add", op("Add", words, types), positions), "embeddings.LayerNorm")
mask = op("Cast", op("Unsqueeze", "attention_mask", constant("mask_axes", np.array([1, 2], np.int64))), to=TensorProto.FLOAT)
mask = op("Mul", op("Sub", constant("ones", np.float32(1)), mask), constant("lowest", np.finfo(np.float32).min))

for i in range(config["num_hidden_layers"]):
    layer = f"encoder.layer.{i}"
    query, key, value = (split_heads(linear(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value"))
    scores = op("MatMul", query, op("Transpose", key, perm=[0, 1, 3, 2]))
    scores = op("Div", scores, constant("root", np.float32(np.sqrt(hidden // heads))))
    context = op("MatMul", op("Softmax", op("Add", scores, mask), axis=-1), value)
    joined = constant("joined_shape", np.array([0, 0, hidden], np.int64))
    context = op("Reshape", op("Transpose", context, perm=[0, 2, 1, 3]), joined)
    x = layer_norm(op("Add", linear(context, f"{layer}.attention.output.dense"), x), f"{layer}.attention.output.LayerNorm")
    up = linear(x, f"{layer}.intermediate.dense")
    erf = op("Add", op("Erf", op("Div", up, constant("root_two", np.float32(np.sqrt(2))))), constant("ones", np.float32(1)))
    up = op("Mul", op("Mul", up, erf), constant("half", np.float32(0.5)))
    x = layer_norm(op("Add", linear(up, f"{layer}.output.dense"), x), f"{layer}.output.LayerNorm")

nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
ids = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in ("input_ids", "attention_mask", "token_type_ids")]
result = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", hidden])
graph = helper.make_graph(nodes, "encoder", ids, [result], list(constants.values()))
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, out)
