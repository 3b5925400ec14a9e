//! Do the scripts that the pages share hold by themselves? They run in the browser, without a server.

use serde_json::json;

use crate::driver::browse;

const SHARED: &str = concat!(
    include_str!("../../src/web/assets/shared/dom.js"),
    include_str!("../../src/web/assets/shared/markdown.js"),
    include_str!("../../src/web/assets/shared/client.js"),
);

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_may_be_cut_anywhere() {
    let stream = ": hello\r\n\r\ndata: {\"a\":1}\n\nevent: delta\r\ndata: one\r\ndata:two\r\n\r\ndata: \u{fc}\u{1f600}\n\ndata: [DONE]\n\n";
    browse("events", async |page| {
        let script = format!(
            "{SHARED}; const bytes = new TextEncoder().encode({}); const wrong = [];\
             for (let a = 0; a <= bytes.length; a += 1) for (let b = a; b <= bytes.length; b += 1) {{\
               const parser = new EventParser(); const decoder = new TextDecoder();\
               const parts = [bytes.slice(0, a), bytes.slice(a, b), bytes.slice(b)];\
               const events = parts.flatMap((part) => parser.push(decoder.decode(part, {{ stream: true }})));\
               const text = JSON.stringify(events.map((e) => [e.event, e.data]));\
               if (!wrong.includes(text)) wrong.push(text);\
             }} return wrong;",
            json!(stream)
        );
        let expected = json!([
            ["message", "{\"a\":1}"],
            ["delta", "one\ntwo"],
            ["message", "\u{fc}\u{1f600}"],
            ["message", "[DONE]"]
        ]);
        assert_eq!(page.run(&script).await, json!([expected.to_string()]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn markdown_becomes_the_nodes_it_means() {
    let cases = [
        ("a *b* **c** `d` _e_ f_g_h", "p(a em(b) strong(c) code(d) em(e) f_g_h)"),
        ("see [1], [2, 3] and [9]", "p(see cite(1), cite(2)cite(3) and )"),
        (
            "[x](https://a.example/b) [y](javascript:alert(1)) https://c.example/d.",
            "p(a(x) span(y) a(https://c.example/d).)",
        ),
        ("- one\n- two\n  - inner\n\n3. three", "ul(li(one)li(twoul(li(inner))))ol(li(three))"),
        ("# Head\n```\n<b>&\n```\n> quote", "h4(Head)pre(code(<b>&))blockquote(p(quote))"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "div(table(thead(tr(th(a)th(b)))tbody(tr(td(1)td(2)))))"),
        ("<img src=x onerror=alert(1)>", "p(<img src=x onerror=alert(1)>)"),
        ("**open and `open", "p(**open and `open)"),
        ("one\ntwo  \nthree", "p(one twobr()three)"),
    ];
    browse("markdown", async |page| {
        for (text, expected) in cases {
            let script = format!(
                "{SHARED}; const show = (node) => node.nodeType === 3 ? node.data\
                   : (node.className === 'cite' ? 'cite' : node.tagName.toLowerCase()) + '(' + [...node.childNodes].map(show).join('') + ')';\
                 const cite = (n) => n === 9 ? null : h('button', {{ class: 'cite' }}, String(n));\
                 return [...renderMarkdown({}, cite).childNodes].map(show).join('');",
                json!(text)
            );
            assert_eq!(page.run(&script).await, json!(expected), "{text}");
        }
        // Long and hostile texts take no longer than plain ones would.
        let hostile = ["[".repeat(20_000), "**".repeat(20_000), "`".repeat(20_001), "> ".repeat(20_000), "- ".repeat(20_000)];
        for text in hostile {
            let script = format!("{SHARED}; return renderMarkdown({}).textContent.length;", json!(text));
            assert!(page.run(&script).await.as_u64().is_some(), "{}", &text[..4]);
        }
    })
    .await;
}
