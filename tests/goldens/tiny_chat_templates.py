"""Chat templates of the tiny checkpoints: the prompt formats of the released models, each in the file in which the
released model has it, and generation_config.json.

A template here writes what the released one writes for messages of text, pictures and (Qwen) videos; tools are left out.
"""

from __future__ import annotations

# As a text, or as a list of {"type", ...}; every template below takes both.
PIXTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}

{%- macro write(content) %}
    {%- if content is string %}
        {{- content }}
    {%- else %}
        {%- for part in content %}
            {%- if part["type"] == "text" %}
                {{- part["text"] }}
            {%- elif part["type"] == "image" %}
                {{- "[IMG]" }}
            {%- else %}
                {{- raise_exception("Only text and images are supported, got " + part["type"]) }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}

{{- bos_token }}
{%- for message in turns %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("After the optional system message, roles must alternate user/assistant/user/assistant") }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {{- "[INST]" }}
        {%- if loop.last and system is defined %}
            {{- write(system) + "\\n\\n" }}
        {%- endif %}
        {{- write(message["content"]) + "[/INST]" }}
    {%- elif message["role"] == "assistant" %}
        {{- write(message["content"]) + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, and a system message at the start") }}
    {%- endif %}
{%- endfor %}
"""

MISTRAL3 = """\
{%- set default_system = "You are Mistral Small 3, a large language model trained by Mistral AI." %}
{{- bos_token }}
{%- if messages[0]["role"] == "system" %}
    {%- if messages[0]["content"] is string %}
        {%- set system = messages[0]["content"] %}
    {%- else %}
        {%- set system = messages[0]["content"][0]["text"] %}
    {%- endif %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = default_system %}
    {%- set turns = messages %}
{%- endif %}
{{- "[SYSTEM_PROMPT]" + system + "[/SYSTEM_PROMPT]" }}
{%- for message in turns %}
    {%- if message["role"] == "user" %}
        {%- if message["content"] is string %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" }}
            {%- for block in message["content"] %}
                {%- if block["type"] == "text" %}
                    {{- block["text"] }}
                {%- elif block["type"] in ["image", "image_url"] %}
                    {{- "[IMG]" }}
                {%- else %}
                    {{- raise_exception("Only text and image blocks are supported in message content!") }}
                {%- endif %}
            {%- endfor %}
            {{- "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "system" %}
        {{- raise_exception("Only one system message is supported, at the start") }}
    {%- elif message["role"] == "assistant" %}
        {%- if message["content"] is string %}
            {{- message["content"] + eos_token }}
        {%- else %}
            {{- message["content"][0]["text"] + eos_token }}
        {%- endif %}
    {%- else %}
        {{- raise_exception("Only user, system and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
"""

QWEN = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set first_prefix = "" -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if message['role'] == 'assistant' -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}
"""


def chat_files(family: str, ids: dict[str, int]) -> dict[str, dict | str]:
    """File name -> content, of the files that make a checkpoint chat."""
    if family == "pixtral":
        return {
            "chat_template.json": {"chat_template": PIXTRAL},
            "generation_config.json": {"bos_token_id": ids["<s>"], "eos_token_id": ids["</s>"]},
        }
    if family == "mistral3":
        return {
            "chat_template.jinja": MISTRAL3,
            "generation_config.json": {"bos_token_id": ids["<s>"], "eos_token_id": ids["</s>"]},
        }
    if family in ("qwen2_vl", "qwen2_5_vl"):
        ends = [ids["<|im_end|>"], ids["<|endoftext|>"]]
        common = {"bos_token_id": ids["<|endoftext|>"], "pad_token_id": ids["<|endoftext|>"], "do_sample": True,
                  "eos_token_id": ends}
        sampling = (
            {"repetition_penalty": 1.05, "temperature": 0.000001}
            if family == "qwen2_5_vl"
            else {"temperature": 0.01, "top_k": 1, "top_p": 0.001}
        )
        return {"chat_template.json": {"chat_template": QWEN}, "generation_config.json": {**common, **sampling}}
    return {
        "chat_template.json": {"chat_template": GEMMA},
        "generation_config.json": {
            "bos_token_id": ids["<bos>"],
            "cache_implementation": "hybrid",
            "do_sample": True,
            "eos_token_id": [ids["<eos>"], ids["<end_of_turn>"]],
            "pad_token_id": ids["<pad>"],
            "top_k": 64,
            "top_p": 0.95,
        },
    }
