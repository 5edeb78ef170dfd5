"""Small models with random weights of every family that is opened, as transformers itself makes them."""

import contextlib
import logging

import torch

VOCAB, WIDTH, LENGTH = 40, 16, 32


def _decoder(**fields):
    sizes = {"vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": LENGTH}
    return {**sizes, **heads, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **fields}


def _encoder(**fields):
    sizes = {"vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 1}
    return {**sizes, "num_attention_heads": 2, "max_position_embeddings": LENGTH, **fields}


def _t5(**fields):
    return {"vocab_size": VOCAB, "d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, **fields}


_GPT2 = {"vocab_size": VOCAB, "n_embd": WIDTH, "n_layer": 1, "n_head": 2, "n_positions": LENGTH}
_GPT2 |= {"bos_token_id": 1, "eos_token_id": 1}
_BLOOM = {"vocab_size": VOCAB, "hidden_size": WIDTH, "n_layer": 1, "n_head": 2}
_HEAD_DIM = {"head_dim": 8}
# name: model class, config class, settings
CASES = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", _GPT2),
    "gpt2-untied": ("GPT2LMHeadModel", "GPT2Config", {**_GPT2, "tie_word_embeddings": False}),
    "gpt2-headless": ("GPT2Model", "GPT2Config", _GPT2),
    "bert": ("BertForMaskedLM", "BertConfig", _encoder()),
    "bert-headless": ("BertModel", "BertConfig", _encoder()),
    "bert-pretraining": ("BertForPreTraining", "BertConfig", _encoder()),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", _encoder()),
    "xlm-roberta": ("XLMRobertaForMaskedLM", "XLMRobertaConfig", _encoder()),
    "t5": ("T5ForConditionalGeneration", "T5Config", _t5()),
    "t5-encoder": ("T5EncoderModel", "T5Config", _t5()),
    "mt5": ("MT5ForConditionalGeneration", "MT5Config", _t5()),
    "bloom": ("BloomForCausalLM", "BloomConfig", _BLOOM),
    "llama": ("LlamaForCausalLM", "LlamaConfig", _decoder()),
    "llama-tied": ("LlamaForCausalLM", "LlamaConfig", _decoder(tie_word_embeddings=True)),
    "llama-headless": ("LlamaModel", "LlamaConfig", _decoder()),
    "mistral": ("MistralForCausalLM", "MistralConfig", _decoder()),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", _decoder(num_local_experts=2)),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _decoder()),
    "qwen2-tied": ("Qwen2ForCausalLM", "Qwen2Config", _decoder(tie_word_embeddings=True)),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", _decoder(**_HEAD_DIM)),
    "qwen2_moe": ("Qwen2MoeForCausalLM", "Qwen2MoeConfig", _decoder(num_experts=2, num_experts_per_tok=1)),
    "qwen3_moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", _decoder(num_experts=2, num_experts_per_tok=1)),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", _decoder(**_HEAD_DIM)),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", _decoder(**_HEAD_DIM)),
    "gemma3_text": ("Gemma3ForCausalLM", "Gemma3TextConfig", _decoder(**_HEAD_DIM, num_hidden_layers=7)),
}


@contextlib.contextmanager
def silence():
    """Without what transformers says of new models."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def make(name, dtype=torch.float32, **settings):
    """A model of a case, random weights everywhere, biases and norms too."""
    import transformers

    model_class, config_class, fields = CASES[name]
    torch.manual_seed(0)
    with silence():
        config = getattr(transformers, config_class)(**{**fields, **settings})
        model = getattr(transformers, model_class)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.to(dtype).eval()


def first_input(model, ids, **inputs):
    """What the first block of a model reads: the model's own input embedding."""
    encoder = model.encoder if model.config.model_type in ("t5", "mt5") else model
    names = [name for name, _ in encoder.named_modules() if name.endswith(".0") and "dropout" not in name]
    block = encoder.get_submodule(min(names, key=lambda name: name.count(".")))
    read = []

    def keep(module, arguments, keywords):
        read.append(arguments[0] if arguments else keywords["hidden_states"])

    handle = block.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        encoder(input_ids=ids, **inputs)
    handle.remove()
    return read[0]
