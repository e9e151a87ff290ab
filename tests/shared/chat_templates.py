"""Chat templates of real models: written anew from their makers' descriptions, with what an answer is there."""

from dataclasses import dataclass, field

from minillm.assistant.conversations import CHATML


@dataclass(frozen=True)
class Sample:
    """source: the template. answer: what the assistant says, with {raw} or {content} (trimmed) in it. special: the
    tokens that it writes. system: whether it takes a system message. variables: bos_token and the like."""

    source: str
    answer: str
    special: tuple[str, ...]
    system: bool = True
    variables: dict[str, str] = field(default_factory=dict)


BOS_EOS = {"bos_token": "<s>", "eos_token": "</s>"}
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('No system message.') }}{% endif %}"

LLAMA_2 = """\
{%- set first = 0 -%}{%- set sys = '' -%}
{%- if messages[0]['role'] == 'system' -%}
  {%- set first = 1 -%}{%- set sys = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' -%}
{%- endif -%}
{%- for m in messages[first:] -%}
  {%- if m['role'] == 'user' -%}
    {{- bos_token + '[INST] ' + ((sys if loop.index0 == 0 else '') + m['content']).strip() + ' [/INST]' -}}
  {%- else -%}{{- ' ' + m['content'].strip() + ' ' + eos_token -}}{%- endif -%}
{%- endfor -%}"""

LLAMA_3 = """\
{% for m in messages %}
{% set text = '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' %}
{% if loop.first %}{% set text = bos_token + text %}{% endif %}
{{- text -}}
{% endfor %}
{% if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{% endif %}"""

MISTRAL_1 = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate, the user first.') }}{% endif %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}"
    "{% endfor %}"
)

# The system message stands before the last of the user's.
MISTRAL_3 = """\
{%- set sys = messages[0].content if messages[0].role == 'system' else '' -%}
{%- set turns = messages[1:] if sys else messages -%}
{{- bos_token -}}
{%- set last = (turns | selectattr('role', 'equalto', 'user') | list)[-1] -%}
{%- for m in turns -%}
  {%- if m.role == 'user' -%}
    {{- '[INST] ' + (sys + '\\n\\n' if sys and m == last else '') + m.content + '[/INST]' -}}
  {%- else -%}{{- ' ' + m.content | trim + eos_token -}}{%- endif -%}
{%- endfor -%}"""

GEMMA = (
    "{{ bos_token }}" + NO_SYSTEM + "{% for m in messages %}"
    "{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\\n' + m.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

PHI_3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)

ZEPHYR = """\
{% for m in messages %}
{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token }}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

QWEN_25 = """\
{%- if messages[0].role == 'system' -%}
  {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' -}}
{%- else -%}{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}{%- endif -%}
{%- for m in messages -%}
  {%- if not (loop.first and m.role == 'system') -%}
    {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

# Thoughts stand before the last answer only; those of earlier ones are left out.
QWEN_3 = """\
{%- for m in messages -%}
  {%- set content = m.content -%}{%- set thought = '' -%}
  {%- if m.role == 'assistant' and '</think>' in content -%}
    {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}
    {%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
  {%- endif -%}
  {%- if m.role == 'assistant' and loop.last -%}
    {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') -}}
  {%- else -%}{{- '<|im_start|>' + m.role + '\\n' + content -}}{%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

DEEPSEEK_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ 'User: ' + m.content + '\\n\\n' }}"
    "{% elif m.role == 'assistant' %}{{ 'Assistant: ' + m.content + eos_token }}"
    "{% else %}{{ m.content + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

# A thought is begun for the model, and left out of what it said.
DEEPSEEK_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<|User|>' + m.content }}"
    "{% elif m.role == 'assistant' %}{{ '<|Assistant|>' + m.content.split('</think>')[-1] + eos_token }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
)

VICUNA = (
    "{% if messages[0].role == 'system' %}{{ messages[0].content + ' ' }}{% set turns = messages[1:] %}"
    "{% else %}{{ 'A chat between a user and an assistant. ' }}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m.role == 'user' %}{{ 'USER: ' + m.content | trim + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

TULU = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|assistant|>\\n' + m.content + eos_token + ('' if loop.last else '\\n') }}"
    "{% else %}{{ '<|' + m.role + '|>\\n' + m.content + '\\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}"
)

# With marks, in two macros, since what an answer is like depends on a setting.
SMOLLM_3 = """\
{%- macro turn(role, text) -%}{{- '<|im_start|>' + role + '\\n' + text + '<|im_end|>' -}}{%- endmacro -%}
{%- for m in messages -%}
  {%- if m.role == 'assistant' -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- generation -%}
      {{- ('' if enable_thinking else '<think>\\n\\n</think>\\n') + m.content | trim + '<|im_end|>' -}}
    {%- endgeneration -%}
  {%- else -%}{{- turn(m.role, m.content) -}}{%- endif -%}
  {{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

NO_END = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}### assistant:\n"

IM = ("<|im_start|>", "<|im_end|>")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SAMPLES = {
    "ChatML": Sample(CHATML.read_text(encoding="utf-8"), "{raw}<|im_end|>", IM),
    "Llama 2": Sample(LLAMA_2, " {content} </s>", ("<s>", "</s>"), variables=BOS_EOS),
    "Llama 3": Sample(
        LLAMA_3, "{content}<|eot_id|>", ("<|bot|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        variables={"bos_token": "<|bot|>"},
    ),
    "Mistral 0.1": Sample(MISTRAL_1, "{raw}</s>", ("<s>", "</s>"), system=False, variables=BOS_EOS),
    "Mistral 0.3": Sample(
        MISTRAL_3, " {content}</s>", ("<s>", "</s>", "[INST]", "[/INST]"), system=False, variables=BOS_EOS
    ),
    "Gemma": Sample(
        GEMMA, "{content}<end_of_turn>", ("<bos>", "<start_of_turn>", "<end_of_turn>"), system=False,
        variables={"bos_token": "<bos>"},
    ),
    "Phi 3": Sample(PHI_3, "{raw}<|end|>", (*ROLES, "<|end|>", "</s>"), variables=BOS_EOS),
    "Zephyr": Sample(ZEPHYR, "{raw}</s>", ("<s>", "</s>"), variables=BOS_EOS),
    "Qwen 2.5": Sample(QWEN_25, "{raw}<|im_end|>", (*IM, "<|endoftext|>")),
    "DeepSeek 2": Sample(DEEPSEEK_2, " {raw}<|eos|>", ("<|bos|>", "<|eos|>"),
                         variables={"bos_token": "<|bos|>", "eos_token": "<|eos|>"}),
    "Vicuna": Sample(VICUNA, " {content}</s>", ("<s>", "</s>"), variables=BOS_EOS),
    "Tulu": Sample(TULU, "{raw}</s>", ("<s>", "</s>"), variables=BOS_EOS),
    "SmolLM 3": Sample(SMOLLM_3, "<think>\n\n</think>\n{content}<|im_end|>", IM),
}  # fmt: skip
