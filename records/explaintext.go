package records

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// String is the explanation as text for a terminal, in several lines. What may
// come from strangers, such as ids, cannot control the terminal.
func (e *Explanation) String() string {
	var b strings.Builder
	q := e.Question
	fmt.Fprintf(&b, "%s %s", opName(q.Op), terminal(q.API))
	if q.ID != "" {
		fmt.Fprintf(&b, " %s", terminal(q.ID))
	}
	outcome := "denied"
	if e.Granted {
		outcome = "granted"
	}
	fmt.Fprintf(&b, " by %s: %s (%d %s)\n", q.Caller.text(), outcome, e.Status, http.StatusText(e.Status))
	for _, s := range e.Steps {
		fmt.Fprintf(&b, "  %-10s  %s", s.Verdict, s.Name)
		if s.Text != "" {
			fmt.Fprintf(&b, ": %s", terminal(s.Text))
		}
		if s.Note != "" {
			fmt.Fprintf(&b, " (%s)", terminal(s.Note))
		}
		b.WriteByte('\n')
		writeParts(&b, s.Op, s.Parts, 1)
	}
	return b.String()
}

// WriteTo writes String.
func (e *Explanation) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, e.String())
	return int64(n), err
}

func writeParts(b *strings.Builder, op string, parts []ExplainedPart, depth int) {
	for i, p := range parts {
		between := ""
		if i > 0 {
			between = op
		}
		fmt.Fprintf(b, "  %s%-10s  %-3s %s\n", strings.Repeat("    ", depth), terminal(p.Value), between, terminal(p.Text))
		writeParts(b, p.Op, p.Parts, depth+1)
	}
}

// text names the caller.
func (c Caller) text() string {
	if c.System {
		return "the application"
	}
	switch id := c.ID.(type) {
	case int64:
		return "user " + strconv.FormatInt(id, 10)
	case string:
		return "user " + terminal(id)
	case []byte:
		if id != nil {
			return "user " + idString(id)
		}
	}
	return "an anonymous caller"
}

// terminal is text in one line without anything that a terminal would obey.
func terminal(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}
