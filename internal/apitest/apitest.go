// Package apitest plays HTTP conversations that are written down in files.
//
// A file is a list of exchanges: a line that names it, the request behind ">",
// the answer behind "<". Of the request only its first line is needed; headers
// follow, and behind an empty line comes the body:
//
//	== a note is made
//	> POST /notes
//	> Content-Type: application/json
//	>
//	> {"title":"one"}
//	< 200
//	< Content-Type: application/json
//	<
//	< {"ids":["1"]}
//
// Lines that begin with "#" are comments. With the flag -update the answers
// in the file are replaced by those that were given.
//
// What changes from run to run can be named: in a request, {cursor} stands for
// the cursor and {id} for the last of the ids of the most recent answer that
// had some. In answers a cursor is written as {cursor}, and text that matches
// an expression given to [Mask] as the name given there.
package apitest

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the answers that were given into the golden files")

// Updating reports whether the flag -update is set.
func Updating() bool { return *update }

// shown are the headers of an answer that stand in a file.
var shown = []string{"Allow", "Content-Type", "Location", "Retry-After"}

// An Option changes what [Run] does.
type Option func(*player)

// Mask writes name instead of what expression matches in a body.
func Mask(expression, name string) Option {
	re := regexp.MustCompile(expression)
	return func(p *player) {
		p.masks = append(p.masks, func(body string) string { return re.ReplaceAllString(body, name) })
	}
}

type player struct {
	handler http.Handler
	masks   []func(string) string
	cursor  string
	id      string
}

// Run plays the conversation in file against h.
func Run(t *testing.T, file string, h http.Handler, opts ...Option) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	exchanges, err := parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	p := &player{handler: h}
	for _, o := range opts {
		o(p)
	}
	var out strings.Builder
	for _, e := range exchanges {
		got, err := p.play(e)
		if err != nil {
			t.Fatalf("%s:%d: %s: %v", file, e.line, e.name, err)
		}
		if got != e.response && !Updating() {
			t.Errorf("%s:%d: %s\n%s", file, e.line, e.name, compare(got, e.response))
		}
		out.WriteString(e.head)
		for _, line := range e.request {
			fmt.Fprintln(&out, strings.TrimRight("> "+line, " "))
		}
		out.WriteString(got + "\n")
	}
	if Updating() {
		write(t, file, strings.TrimRight(out.String(), "\n")+"\n")
	}
}

// Golden compares got with the content of file, or with -update writes it.
func Golden(t *testing.T, file, got string) {
	t.Helper()
	if Updating() {
		write(t, file, got)
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != got {
		t.Errorf("%s differs:\n%s", file, compare(got, string(text)))
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// compare lists the lines that differ.
func compare(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	var b strings.Builder
	for i, n := 0, 0; i < max(len(g), len(w)) && n < 20; i++ {
		line := func(s []string) string {
			if i < len(s) {
				return s[i]
			}
			return "(nothing)"
		}
		if line(g) != line(w) {
			n++
			fmt.Fprintf(&b, "  line %d\n   got %s\n  want %s\n", i+1, line(g), line(w))
		}
	}
	return b.String()
}

// exchange is one request with its answer as the file has it.
type exchange struct {
	line     int
	name     string
	head     string   // what stands before the request, to be written back
	request  []string // lines without "> "
	response string   // lines with "< "
}

func parse(text string) (all []exchange, err error) {
	var e *exchange
	head := ""
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			head += line + "\n"
		case strings.HasPrefix(line, "== "):
			all = append(all, exchange{line: i + 1, name: line[3:], head: head + line + "\n"})
			e, head = &all[len(all)-1], ""
		case e == nil:
			return nil, fmt.Errorf("line %d is before the first ==", i+1)
		case strings.HasPrefix(line, ">"):
			e.request = append(e.request, strings.TrimPrefix(line[1:], " "))
		case strings.HasPrefix(line, "<"):
			e.response += line + "\n"
		default:
			return nil, fmt.Errorf("line %d begins with neither ==, >, < nor #", i+1)
		}
	}
	return all, nil
}

// play makes the request and returns the answer in the form of the file.
func (p *player) play(e exchange) (string, error) {
	if len(e.request) == 0 {
		return "", fmt.Errorf("there is no request")
	}
	fill := strings.NewReplacer("{cursor}", p.cursor, "{id}", p.id)
	method, target, ok := strings.Cut(fill.Replace(e.request[0]), " ")
	if !ok {
		return "", fmt.Errorf("%q is not a method and a path", e.request[0])
	}
	var body io.Reader = http.NoBody
	headers := e.request[1:]
	for i, line := range e.request {
		if i > 0 && line == "" {
			headers = e.request[1:i]
			text := fill.Replace(strings.Join(e.request[i+1:], "\n"))
			if strings.Contains(strings.Join(headers, "\n"), "multipart/") {
				text = strings.ReplaceAll(text, "\n", "\r\n")
			}
			body = strings.NewReader(text)
			break
		}
	}
	r := httptest.NewRequest(method, target, body)
	for _, line := range headers {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return "", fmt.Errorf("%q is not a header", line)
		}
		r.Header.Add(name, strings.TrimSpace(value))
	}
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, r)
	return p.describe(w), nil
}

var (
	cursorMember = regexp.MustCompile(`"cursor":"([^"]*)"`)
	idsMember    = regexp.MustCompile(`"ids":\[.*"([^"]*)"\]`)
)

func (p *player) describe(w *httptest.ResponseRecorder) string {
	body := w.Body.String()
	if m := cursorMember.FindStringSubmatch(body); m != nil {
		p.cursor = m[1]
		body = strings.Replace(body, m[0], `"cursor":"{cursor}"`, 1)
	}
	if m := idsMember.FindStringSubmatch(body); m != nil {
		p.id = m[1]
	}
	for _, mask := range p.masks {
		body = mask(body)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "< %d\n", w.Code)
	header := w.Result().Header
	for _, name := range shown {
		for _, v := range header[name] {
			fmt.Fprintf(&b, "< %s: %s\n", name, v)
		}
	}
	if body != "" {
		b.WriteString("<\n")
		for line := range strings.SplitSeq(body, "\n") {
			fmt.Fprintln(&b, strings.TrimRight("< "+line, " "))
		}
	}
	return b.String()
}
