"""Blocks of a report: a chart with its caption, a table of results, rows of names and values. HTML, as text."""
from html import escape


def chart(head, drawing, caption="", wide=False):
    """head, caption: HTML; drawing: SVG, or SVG and its legend"""
    drawn, key = drawing if isinstance(drawing, tuple) else (drawing, "")
    return (f'<figure class="chart{" wide" if wide else ""}"><h4>{head}</h4>{drawn}'
            f"<figcaption>{key} {caption}</figcaption></figure>")


def charts(figures):
    return f'<div class="charts">{"".join(figures)}</div>'


def number_table(table, last=True):
    """utils.evaluation.tables.Table  ->  HTML; last: the last row is a summary, in bold"""
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = [f"<td>{'</td><td>'.join(escape(cell_text(cell)) for cell in row)}</td>" for row in table.rows]
    body = "".join(f'<tr{" class=" + chr(34) + "last" + chr(34) if last and i == len(rows) - 1 else ""}>{row}</tr>'
                   for i, row in enumerate(rows))
    return f'<div class="wrap"><table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def text_table(header, rows):
    """Rows of plain text under their names."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return (f'<div class="wrap"><table class="numbers text"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
            "</div>")


def fact_table(facts):
    """{name: value}, plain text  ->  two columns; empty values are left out"""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
                   for name, value in facts.items() if value not in (None, ""))
    return f"<table>{rows}</table>"


def cell_text(cell):
    """A cell of a Table: text, (mean, spread or None) in per cent, or None  ->  text"""
    if cell is None or isinstance(cell, str):
        return cell or ""
    return f"{cell[0]:.1f}" + ("" if cell[1] is None else f" ± {cell[1]:.1f}")


def sentence(text, kind="quiet"):
    """A line of HTML text; kind: quiet | warning"""
    return f'<p class="{kind}">{text}</p>'
