"""The words of `words.ENGLISH` in Simplified Chinese: the same keys, the same placeholders."""

from __future__ import annotations

from loadgen.statistics.words import Texts

CHINESE: Texts = {
    "ttft_ms": "首 Token 延迟 (TTFT)",
    "tpot_ms": "每 Token 延迟 (TPOT)",
    "e2e_ms": "端到端延迟 (E2E)",
    "output_tokens_per_s": "输出吞吐量",
    "requests_per_s": "每秒请求数",
    "slo": "SLO",
    "mean": "均值",
    "goodput_per_s": "有效吞吐",
    "figure": "{source} {figure}",
    "clause": "{metric}：{text}",
    "join": "；",
    "sentence": "{head}。{clauses}。",
    "a": "{a} 比 {b} 快",
    "b": "{b} 比 {a} 快",
    "none": "{a} 与 {b} 之间没有值得在意的差异",
    "undecided": "{a} 与 {b} 之间尚无定论",
    "invalid": "{a} 与 {b} 无法比较",
    "difference": "{winner} 快 {share}",
    "difference.mean": "{winner} 在 {cells} 个单元上平均快 {share}",
    "opposite": "{text}（但在其中 {count} 个单元上更慢）",
    "within_margin": "差异不超过 {margin}",
    "within_floor": "差异不超过压测客户端自身的误差",
    "one_repeat": "尚无定论：每个引擎只有一个测试块，无法区分真实差异与漂移",
    "too_noisy": "尚无定论：各测试块之间波动过大",
    "multiplicity": "尚无定论：在 {family} 项比较中（显著性水平 {alpha}），这可能只是偶然",
    "below_floor": "尚无定论：差异小于压测客户端自身的误差",
    "few_requests": "尚无定论：请求数不足以估计该百分位",
    "trend": "尚无定论：运行期间比值的变化超过了差异本身",
    "order": "尚无定论：漂移加上测试块的先后顺序即可解释这一差异",
    "tokens_per_event": "尚无定论：两个引擎每个事件所含的 Token 数不同，仅此一点就可能造成这样的变化",
    "mixed": "尚无定论：两个引擎各在一项指标上领先",
    "no_valid_pair": "没有任何一次重复同时具有两个引擎的有效测试块",
    "not_measured": "未测得",
    "not_positive": "数值为零，没有比值",
    "further.one": "{text}（再重复 1 次大概即可定论）",
    "further": "{text}（再重复 {count} 次大概即可定论）",
    "detectable": "{text}；若差异达到 {share} 则应已被发现",
    "moved": "{engine} 的 {metric} 从首个测试块到最后一个测试块变化了 {change}",
    "moved.claimed": "{text}，大于测得的差异（{difference}）",
    "family": "对 {family} 项比较（每个单元以及全部单元合计的 {metrics}）做了 Holm 校正：若两个引擎相同，"
    "至多在 {alpha} 的运行中会误报差异。其他指标只有各自的置信区间。",
}
