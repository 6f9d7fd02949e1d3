"""The end of a run where a user looks first: on DisCa Sample, at the node's own size."""

import pytest

from disca.report import Report

pytestmark = pytest.mark.browser

SHOW = """text => {
  for (const item of [...app.graph.nodes, ...app.graph.groups]) app.graph.remove(item)
  const node = LiteGraph.createNode("DiscaSample")
  app.graph.add(node)
  app.api.dispatchCustomEvent("progress_text", {nodeId: String(node.id), text})
}"""  # as a message of the server's does
SEEN = """line => {
  const text = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (text.nextNode()) {
    if (text.currentNode.textContent.trim() !== line) continue
    const range = document.createRange()
    range.selectNodeContents(text.currentNode)
    const boxes = [...range.getClientRects()]
    let within = boxes.length === 1 && boxes[0].height > 0
    for (let e = text.currentNode.parentElement; e; e = e.parentElement)
      if (getComputedStyle(e).overflowY !== "visible")
        within &&= boxes[0].bottom <= e.getBoundingClientRect().bottom + 1
    if (within) return true
  }
  return false
}"""  # on one line of its own, not scrolled or cut away


def test_the_result_is_seen_without_scrolling_one_fact_a_line(ui, shoot):
    report = Report(full=8, predicted=12, seconds_full=[0.7654] * 8, seconds_predicted=[0.0987] * 12, steps=20)
    ui.evaluate(SHOW, "  \n".join(report.short))
    ui.fit(scale=1.0)
    shoot(f"report_{ui.renderer}")
    assert len(report.short) == 2
    assert [line for line in report.short if not ui.evaluate(SEEN, line)] == []
