package repocheck

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

var (
	inlineLink = regexp.MustCompile(`\]\(\s*(<[^>]*>|[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)`)
	linkTarget = regexp.MustCompile(`^ {0,3}\[[^\]]+\]:\s+(\S+)`)
	htmlLink   = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	htmlAnchor = regexp.MustCompile(`<a\s+(?:name|id)="([^"]+)"`)
	codeSpan   = regexp.MustCompile("``[^`].*?``|`[^`]*`")
	heading    = regexp.MustCompile(`^ {0,3}#{1,6}\s+(.*?)(?:\s+#+)?\s*$`)
	linkText   = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
)

// mdLine is a line of a Markdown file; fenced is true inside a code block and on its fences.
type mdLine struct {
	number int
	text   string
	fenced bool
}

// mdLines parts a Markdown text in lines.
func mdLines(text string) []mdLine {
	var out []mdLine
	fence := ""
	for i, l := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(l)
		mark := ""
		for _, m := range []string{"```", "~~~"} {
			if strings.HasPrefix(trimmed, m) {
				mark = m
			}
		}
		line := mdLine{number: i + 1, text: l, fenced: fence != "" || mark != ""}
		switch {
		case fence == "" && mark != "":
			fence = mark
		case fence != "" && mark == fence:
			fence = ""
		}
		out = append(out, line)
	}
	return out
}

// anchors is the names that links into a Markdown text may use.
func anchors(text string) []string {
	var out []string
	count := map[string]int{}
	for _, l := range mdLines(text) {
		if l.fenced {
			continue
		}
		for _, m := range htmlAnchor.FindAllStringSubmatch(l.text, -1) {
			out = append(out, m[1])
		}
		m := heading.FindStringSubmatch(l.text)
		if m == nil {
			continue
		}
		name := slug(m[1])
		if n := count[name]; n > 0 {
			out = append(out, name+"-"+strconv.Itoa(n))
		} else {
			out = append(out, name)
		}
		count[name]++
	}
	return out
}

// slug makes an anchor of a heading the way GitHub does: small letters, digits, and dashes for spaces.
func slug(title string) string {
	title = linkText.ReplaceAllString(title, "$1")
	var b strings.Builder
	for _, r := range strings.ToLower(title) {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			b.WriteRune(r)
		case r == ' ':
			b.WriteByte('-')
		}
	}
	return b.String()
}

// targets is where one line of Markdown points.
func targets(line string) []string {
	line = codeSpan.ReplaceAllString(line, "")
	var out []string
	for _, re := range []*regexp.Regexp{inlineLink, linkTarget, htmlLink} {
		for _, m := range re.FindAllStringSubmatch(line, -1) {
			out = append(out, strings.Trim(m[1], "<>"))
		}
	}
	return out
}

// checkLinks finds relative links in Markdown files that point at nothing.
func checkLinks(tr *tree) []string {
	var out []string
	for _, name := range tr.markdown {
		text, missing := tr.read(name, "it was there a moment ago")
		out = append(out, missing...)
		for _, l := range mdLines(text) {
			if l.fenced {
				continue
			}
			for _, target := range targets(l.text) {
				if why := brokenLink(tr, name, target); why != "" {
					out = append(out, fmt.Sprintf("%s:%d: the link %q %s", name, l.number, target, why))
				}
			}
		}
	}
	return out
}

// brokenLink says what is wrong with a link in the file from, or "".
func brokenLink(tr *tree, from, target string) string {
	u, err := url.Parse(target)
	switch {
	case err != nil:
		return "is no link: " + err.Error()
	case u.Scheme != "" || u.Host != "":
		return "" // elsewhere: not ours to keep
	case target == "":
		return "is empty: write where it goes"
	case path.IsAbs(u.Path):
		return "begins with a slash: write it relative to the file that it stands in"
	}
	to := from
	if u.Path != "" {
		to = path.Join(path.Dir(from), u.Path)
	}
	if to == ".." || strings.HasPrefix(to, "../") {
		return "leaves the repository: only those with the same folders around it could follow it"
	}
	if !tr.exists(to) {
		return "points at " + to + ", which is not there: mend the link or add the file"
	}
	if u.Fragment == "" || !strings.HasSuffix(to, ".md") {
		return ""
	}
	text, _ := tr.read(to, "")
	if names := anchors(text); !slices.Contains(names, u.Fragment) {
		return fmt.Sprintf("points at a heading that %s does not have; it has: %s", to, strings.Join(names, ", "))
	}
	return ""
}

// Promise: no document points at a file or a heading that is gone.
func TestLinks(t *testing.T) {
	report(t, checkLinks(repository(t)))
}

func TestBrokenLinksAreFound(t *testing.T) {
	tr := scratch(t,
		"go.mod", "module x\n",
		"docs/there.md", "# The way\n\n## Twice\n\n## Twice\n\n## `code` & [link](x.md#y)\n\n```\n# not one\n```\n",
		"docs/x.md", "# y\n",
		"a(b).txt", "",
		"README.md", strings.Join([]string{
			"[ok](docs/there.md) [ok](docs/there.md#the-way) [ok](docs/there.md#twice-1) [ok](docs/) [ok](docs/there.md#code--link)",
			"[web](https://example.com/none) [mail](mailto:a@example.com) `[code](none.md)` [ok](a(b).txt \"title\")",
			"```", "[code](none.md)", "```",
			"[gone](docs/gone.md)",
			"[no heading](docs/there.md#not-one) and ![image](gone.png)",
			"[here](#nowhere)",
			"[root](/docs/there.md) [out](../other/file.md)",
			"[ref]: gone.md",
			`<img src="gone.svg"> <a href="docs/x.md">ok</a>`,
		}, "\n"),
	)
	mustFind(t, checkLinks(tr),
		`README.md:6: the link "docs/gone.md" points at docs/gone.md, which is not there`,
		`README.md:7: the link "docs/there.md#not-one" points at a heading`,
		`README.md:7: the link "gone.png"`,
		`README.md:8: the link "#nowhere"`,
		`README.md:9: the link "/docs/there.md" begins with a slash`,
		`README.md:9: the link "../other/file.md" leaves the repository`,
		`README.md:10: the link "gone.md"`,
		`README.md:11: the link "gone.svg"`,
	)
}
