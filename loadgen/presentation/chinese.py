"""Simplified Chinese, by the English template; `chinese_terms` has names and definitions, `chinese_run` what a run says."""

# ruff: noqa: E501 (a Chinese character counts as two columns)
from __future__ import annotations

from loadgen.presentation.chinese_compare import COMPARE_TEXTS
from loadgen.presentation.chinese_run import RUN_TEXTS
from loadgen.presentation.chinese_terms import TERMS

SENTENCES: dict[str, str] = {
    # the head
    "Nothing was measured in this run, so there is nothing to compare.": "本次运行没有测得任何数据，无从比较。",
    "Nothing can be compared: wherever the engines completed a cell, the load generator was the limit; what was measured "
    "is shown all the same.": "无法比较：凡是各引擎都完成的单元，瓶颈都在压测客户端；测得的数据仍一并列出。",
    "No cell was completed by all engines ({engines}) with requests that count, so nothing can be compared; what was "
    "measured is shown all the same.": "没有任何单元由全部引擎（{engines}）完成并取得有效请求，因此无法比较；测得的数据仍一并列出。",
    "Undecided between {a} and {b}: with one block of each engine a difference cannot be told from drift. Run it again "
    "with `repeats: 4` or more.": "{a} 与 {b} 之间尚无定论：每个引擎只有一个测试块，无法区分真实差异与漂移。请以 `repeats: 4` 或更多次重复再次运行。",
    "{engine} alone, over {cells}: median TTFT {ttft} ms and output throughput {rate} tok/s; only one engine ran, so "
    "nothing is compared{failed}.": "仅 {engine}，{cells}：TTFT 中位数 {ttft} ms，输出吞吐量 {rate} tok/s；只运行了一个引擎，因此没有比较{failed}。",
    "{engine} answered none of {requests}.": "{engine} 未能应答任何请求（{requests}）。",
    "Up to {streams} streams were in flight, and the load generator is calibrated up to {most} only: its own error is taken "
    "from there, and may be larger.": "同时进行的请求流多达 {streams} 个，而压测客户端只校准到 {most} 个：其自身误差取自该处，实际可能更大。",
    "{engine} lost {lost} of {blocks} to failures of its own, so this speaks only of the others.": "{engine} 因自身故障失去了 {blocks}中的 {lost} 个，"
    "因此以上只反映其余部分。",
    "It rests on {parts}.": "依据：{parts}。",
    "{more} more of {all} are client-limited. See “Validity”.": "全部 {all} 个测试块中，另有 {more}受客户端限制，参见“有效性”。",
    "{cells}, {requests} requests a cell and engine in {repeats}": "{cells}，每单元每引擎 {requests} 个请求，{repeats}",
    "1 repeat": "1 次重复",
    "{range} repeats": "{range} 次重复",
    "only {some} of {all} cells count on every engine": "{all} 个单元中只有 {some} 个在所有引擎上均有效",
    "{failed} of {requests} failed": "{requests}中有 {failed} 个失败",
    "by hand in the web UI": "在网页界面中手动进行",
    # notices
    "This run was interrupted: what had been measured by then is shown, the rest is not.": "本次运行被中断："
    "只显示中断前测得的数据。",
    "This run failed before its end: what had been measured by then is shown.": "本次运行未结束即失败：只显示失败前测得的数据。",
    "This run has not ended: it is still going on, or was killed.": "本次运行尚未结束：仍在进行，或已被终止。",
    "No block was ever started.": "没有启动过任何测试块。",
    "{cells} of an engine never ran: {which}.": "有 {cells}从未运行：{which}。",
    "{engine} at {cell}": "{engine}（{cell}）",
    "{engine} at {cell}: {note}.": "{engine}（{cell}）：{note}。",
    "{engine} at {cell} is client-limited, and the search went by it: {reasons}.": "{engine}（{cell}）受客户端限制，但搜索仍以它为准：{reasons}。",
    "{engine} at {cell} (repeat {repeat}) is client-limited and decides nothing: {reasons}.": "{engine}（{cell}，"
    "第 {repeat} 次重复）受客户端限制，不参与结论：{reasons}。",
    "{engine} at {cell} (repeat {repeat}, attempt {attempt}) failed": "{engine}（{cell}，第 {repeat} 次重复，第 {attempt} 次尝试）失败",
    "{engine} at {cell} (repeat {repeat}, attempt {attempt}) never ended": "{engine}（{cell}，第 {repeat} 次重复，"
    "第 {attempt} 次尝试）未结束",
    "{engine} at {cell} (repeat {repeat}, attempt {attempt}) was interrupted": "{engine}（{cell}，第 {repeat} 次重复，"
    "第 {attempt} 次尝试）被中断",
    "Another attempt completed and is the one counted.": "另一次尝试已完成，以那次为准。",
    "{requests} of it are shown, marked partial.": "其中 {requests}仍予显示，并标为不完整。",
    "It is in no figure.": "它不计入任何数据。",
    "{failed}; latencies are those of the successful ones. See “Errors”.": "{failed}；延迟只统计成功的请求。见“错误”。",
    "{things} not equal between the engines: {which}. See “Fairness”.": "引擎之间有 {things}不同：{which}。见“公平性”。",
    "serving setting {name}": "服务参数 {name}",
    "{lines} of requests.jsonl, torn by a crash, left out: {numbers}.": "requests.jsonl 中有 {lines}因崩溃而残缺，已略去：{numbers}。",
    "{lines} of requests.jsonl cannot be read: {which}. Their requests are in no figure.": "requests.jsonl 中有 {lines}无法读取：{which}。这些请求不计入任何数据。",
    "{number} ({problem})": "第 {number} 行（{problem}）",
    "only from blocks that did not end well ({states})": "仅来自未正常结束的测试块（{states}）",
    "no request was measured": "没有测得任何请求",
    "{count} of {wanted} requests were measured in repeat {repeat}": "第 {repeat} 次重复只测得 {wanted} 个请求中的 {count} 个",
    "At {prompt} prompt and {output} output tokens, {slo}: {engines}.": "提示 {prompt}、输出 {output} Token，{slo}：{engines}。",
    "The capacity at which {slo} is in the table, for {count} engines and shapes.": "满足 {slo} 的容量见表（{count} 个引擎与请求形状的组合）。",
    "{slo}. The interval goes from the highest load at which that was decided to hold to the lowest at which it was decided to fail. It is that of one search: what a restart or another hour would change is not in it.": "{slo}。"
    "区间从判定为满足的最高负载到判定为不满足的最低负载。区间只反映这一次搜索：重启或换个时段造成的变化不在其内。",
    "No difference is shown: {b} ÷ {a} is {ratio} {interval}.": "未显示差异：{b} ÷ {a} 为 {ratio} {interval}。",
    "{engine} takes more load: {b} ÷ {a} is {ratio} {interval}.": "{engine} 能承受更高负载：{b} ÷ {a} 为 {ratio} {interval}。",
    # differences
    "By how much one engine is faster (the ratio of speeds less 1), with 95% intervals. The line is no difference; within "
    "the grey band a difference does not matter. Filled: decided, in the winner's colour; hollow: no winner.": "一个引擎"
    "快多少（速度之比减 1）及其 95% 置信区间。竖线表示无差异；落在灰色带内的差异无关紧要。实心：已有结论，颜色为胜者；空心：没有胜者。",
    "Rows are {axis}.": "各行为：{axis}。",
    "Below each verdict: {b} ÷ {a} with its 95% interval.": "每个结论下方为 {b} ÷ {a} 及其 95% 置信区间。",
    "In brackets: {b} ÷ {a} with its 95% interval.": "括号内为 {b} ÷ {a} 及其 95% 置信区间。",
    "undecided: one block": "尚无定论：只有一个测试块",
    "p is adjusted for that.": "p 为校正后的值。",
    "With one block of each engine intervals show the scatter within it only, and decide nothing: set `repeats: 4`.": "每个"
    "引擎只有一个测试块时，区间只反映块内波动，不能得出结论：请设置 `repeats: 4`。",
    "← {a} faster | {b} faster →": "← {a} 更快 | {b} 更快 →",
    # figures
    "Lines go through the p50 of TTFT, the mean of TPOT and the output throughput; whiskers reach up to p95.": "折线经过 TTFT 的 "
    "p50、TPOT 的均值和输出吞吐量；须线上至 p95。",
    "at least {rate}": "至少 {rate}",
    "Hollow markers are partial.": "空心标记表示不完整。",
    "Nothing was measured.": "没有测得任何数据。",
    "nothing was measured": "没有测得任何数据",
    "client-limited: nothing is compared": "受客户端限制：无从比较",
    "no block of both counts: nothing is compared": "没有双方均有效的测试块：无从比较",
    "Each point is a load, named beside it; further up and further left is better. Thin lines are 95% intervals.": "每个点是"
    "一个负载（旁注数值）；越靠上、越靠左越好。细线为 95% 置信区间。",
    "At the lowest load. Least squares over the measured requests: TTFT = fixed time + prompt tokens / prefill rate. "
    "Points are means, whiskers reach from p5 to p95. Intervals come from leaving out one repeat each, with one "
    "repeat from the scatter of requests.": "取最低负载，对计入测量的请求做最小二乘拟合：TTFT = 固定耗时 + 提示 Token 数 / 预填充速率。"
    "点为均值，须线从 p5 到 p95。置信区间由逐一去掉一次重复得到；只有一次重复时由请求间的波动得到。",
    "Latencies in ms over the successful measured requests; below each figure its 95% interval.": "延迟单位为 ms，统计成功的"
    "计入测量的请求；每个数值下方为其 95% 置信区间。",
    "Ratios are to {engine}; beside those of headline metrics stands the verdict: the mark of the engine that is faster, or": "比值以 {engine} 为"
    "基准；主要指标的比值旁是结论：更快的引擎的标记，或",
    "The load generator was the limit: this decides nothing.": "瓶颈在压测客户端：不参与结论。",
    "There is no cell.": "没有单元。",
    "The share of a cell's requests that were at least as fast as x; the mark is the median. Panels of a row share their "
    "axis.": "单元中延迟不超过 x 的请求所占比例；标记为中位数。同一行的图共用坐标轴。",
    "{engine}: {requests}, p50 {median} ms, max {most} ms": "{engine}：{requests}，p50 {median} ms，最大 {most} ms",
    "{prompt} prompt tokens, {output} output tokens, {load}": "提示 {prompt} Token、输出 {output} Token、{load}",
    "{prompt} prompt → {output} output tokens": "提示 {prompt} → 输出 {output} Token",
    "minutes since the run began": "运行开始后的分钟数",
    "seconds since the run began": "运行开始后的秒数",
    # drift, memory, energy
    "Each point is a block: its figure against the mean of its engine's blocks of the same cell, in percent. Lines are "
    "least-squares trends.": "每个点是一个测试块：其数值相对于同一引擎、同一单元各测试块均值的百分比偏差。直线为最小二乘趋势。",
    "No engine ran two blocks of one cell, so nothing can be said about drift: set `repeats: 4`.": "没有引擎在同一单元上运行过"
    "两个测试块，因此无法判断漂移：请设置 `repeats: 4`。",
    "{comparisons} checked: in {moved} an engine moved between its first and its last block by more than chance, the "
    "margin and the difference called, if any.": "已检查 {comparisons}：其中 {moved} 项里，有引擎从首个到最后一个测试块的变化"
    "超过了偶然波动、容差以及所认定的差异（如有）。",
    "At {cell}: {words}.": "{cell}：{words}。",
    "{engine}: {change}% from its first block to its last, along a line through {blocks}": "{engine}：从首个到最后一个测试块变化 "
    "{change}%（沿 {blocks}的拟合直线）",
    "Resident memory of the engine's processes ({source}). Shaded: the time of the engine's blocks. The mark is the "
    "peak.": "引擎进程的常驻内存（{source}）。阴影：该引擎测试块所在时段。标记为峰值。",
    "{engine}: at most {peak} GiB": "{engine}：最高 {peak} GiB",
    "kept in {file}": "保存于 {file}",
    "Prometheus at {url}": "Prometheus（{url}）",
    "Prometheus at {url} holds no samples of {metric} for the time of the run": "Prometheus（{url}）没有本次运行期间的 {metric} 样本",
    "this report was made without a Prometheus": "生成本报告时没有可用的 Prometheus",
    "Memory over time of {engines}: {problem}.": "{engines} 的内存曲线：{problem}。",
    "Engine memory: nothing ran, so there is no span of time to show.": "引擎内存：没有任何运行，无时段可显示。",
    "Energy of {gpus} inside the windows of the engine's blocks, other engines' idle GPUs included, and the output tokens "
    "that arrived meanwhile.": "各引擎测试块的测量窗口内 {gpus}的能量（含其他引擎闲置的 GPU），以及同期到达的输出 Token 数。",
    "Energy: Prometheus holds no {metric}, so no GPU told what it used.": "能耗：Prometheus 中没有 {metric}，没有 GPU 报告能耗。",
    "Energy: no block was completed.": "能耗：没有完成任何测试块。",
    "Energy: this report was made without a Prometheus.": "能耗：生成本报告时没有可用的 Prometheus。",
    "Energy: {problem}.": "能耗：{problem}。",
    "Not known.": "未知。",
    # validity, fairness, the rest
    "These blocks decide nothing. They are left out of every ratio and verdict, and so is the other engine's block of the "
    "same repeat.": "以下测试块不参与结论。它们不计入任何比值与结论，另一引擎同一次重复的测试块也一并排除。",
    "Every block that ran counts: each ended well, with all its requests, and none was limited by the load generator.": "所有"
    "运行过的测试块均有效：都正常结束、请求完整，且没有受压测客户端限制。",
    "the other engine has no valid block of this repeat": "另一引擎在这次重复中没有有效的测试块",
    "✓ equal, ≠ not equal, ? could not be told; unmarked facts differ by nature and are for the record.": "✓ 相同，≠ 不同，? 无法判断；未标记的事项本就各异，仅作记录。",
    "Nothing is known.": "没有相关信息。",
    "What the scenario asks of every engine, and what each was told in its own words. ✓ all do just that, ≠ not all do; "
    "settings not asked for are left to each engine.": "场景对每个引擎的要求，以及各引擎实际收到的参数。✓ 全部照办，≠ 并非全部照办；未要求的参数由各引擎自定。",
    "No request failed.": "没有请求失败。",
    "measured: failed measured requests; all: warm-up and drain requests included.": "测得：计入测量的失败请求；全部：含预热与收尾的请求。",
    "{blocks}, {used} in the figures": "{blocks}，其中 {used} 个计入数据",
    "No block was started.": "没有启动任何测试块。",
    "By how much it may have put figures off (p99 of requests), and what it went through; of several workers the worst. "
    "A client-limited block decides nothing.": "客户端可能使数值偏离的程度（请求的 p99）及其自身状况；多个工作进程时取最差者。受客户端限制的测试块不参与结论。",
    "{limited} of {blocks} limited by the load generator": "{blocks}中有 {limited} 个受压测客户端限制",
    "Words in the pictures are English: this machine has no font for Chinese.": "图片中的文字为英文：本机没有中文字体。",
}
CHINESE: dict[str, str] = TERMS | RUN_TEXTS | COMPARE_TEXTS | SENTENCES
