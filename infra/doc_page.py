"""The frame of the pages that the console function serves at /docs: HTML without scripts."""


def doc_page(title: str, body: str, *, root: str) -> str:
    """Return a page.

    Args:
        title: as HTML.
        body: HTML below the heading.
        root: the way from the page to the root of the service: `../`.
    """
    return (
        "<!doctype html>\n"
        '<html lang="en">\n'
        "<head>\n"
        '<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title} · MQTT Trust</title>\n"
        f'<link rel="icon" href="{root}console/icon.svg" type="image/svg+xml">\n'
        f'<link rel="stylesheet" href="{root}console/style.css">\n'
        "</head>\n"
        '<body class="doc">\n'
        f'<header><p class="name"><img src="{root}console/icon.svg" alt="" width="24" height="24">MQTT Trust</p>\n'
        '<nav aria-label="Documentation"><ul>'
        f'<li><a href="{root}console/">Console</a></li> '
        f'<li><a href="{root}docs/">API reference</a></li> '
        f'<li><a href="{root}docs/errors/">Error codes</a></li></ul></nav></header>\n'
        f'<main id="content">\n<h1>{title}</h1>\n{body}</main>\n'
        "</body>\n"
        "</html>\n"
    )
