package realtime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const testLimit = 64

func TestEventReader(t *testing.T) {
	t.Parallel()
	type blocks = []string
	tests := map[string]struct {
		in   string
		want blocks
		end  error // default io.EOF
	}{
		"one":                  {in: "id: e.1\ndata: {}\n\n", want: blocks{`id="e.1" data="{}"`}},
		"no space":             {in: "id:e.1\ndata:{}\n\n", want: blocks{`id="e.1" data="{}"`}},
		"one space goes":       {in: "data:  x \n\n", want: blocks{`data=" x "`}},
		"CR":                   {in: "data: a\rid: 1\r\rdata: b\r\r", want: blocks{`id="1" data="a"`, `data="b"`}},
		"CRLF":                 {in: "data: a\r\nid: 1\r\n\r\ndata: b\r\n\r\n", want: blocks{`id="1" data="a"`, `data="b"`}},
		"mixed ends":           {in: "data: a\r\n\ndata: b\n\r\n\rdata: c\r\r\n", want: blocks{`data="a"`, `data="b"`, `data="c"`}},
		"LF CR is two ends":    {in: "data: a\n\rdata: b\n\n", want: blocks{`data="a"`, `data="b"`}},
		"byte order mark":      {in: "\ufeffdata: a\n\n", want: blocks{`data="a"`}},
		"second mark stays":    {in: "\ufeff\ufeffdata: a\n\n"},
		"later mark stays":     {in: "data: a\n\n\ufeffdata: b\n\n", want: blocks{`data="a"`}},
		"many data lines":      {in: "data: a\ndata\ndata: b\n\n", want: blocks{`data="a\n\nb"`}},
		"comments":             {in: ": ping\n\n:\n\n:data: x\ndata: y\n: z\n\n", want: blocks{`data="y"`}},
		"unknown fields":       {in: "Data: x\nfoo\nfoo: bar\n data: x\ndata : x\nid : 5\n\n"},
		"event name":           {in: "event: gap\ndata: x\n\ndata: y\n\n", want: blocks{`event="gap" data="x"`, `data="y"`}},
		"name alone is none":   {in: "event: gap\n\ndata: y\n\n", want: blocks{`data="y"`}},
		"id alone":             {in: "id: e.7\n\n", want: blocks{`id="e.7"`}},
		"id and comment":       {in: "retry: 2000\nid: e.7\n: ping\n\n", want: blocks{`id="e.7" retry=2s`}},
		"last id counts":       {in: "id: 1\nid: 2\ndata: x\n\n", want: blocks{`id="2" data="x"`}},
		"empty id":             {in: "id\ndata: x\n\n", want: blocks{`id="" data="x"`}},
		"NUL in id":            {in: "id: a\x00b\ndata: x\n\nid: 4\nid: \x00\n\n", want: blocks{`data="x"`, `id="4"`}},
		"NUL in data":          {in: "data: a\x00b\n\n", want: blocks{`data="a\x00b"`}},
		"empty data":           {in: "data\n\ndata:\n\n", want: blocks{`data=""`, `data=""`}},
		"retry":                {in: "retry: 1500\n\ndata: x\n\n", want: blocks{`retry=1.5s data="x"`}},
		"retry not a number":   {in: "retry: 1.5\nretry: -1\nretry: +1\nretry: 1s\nretry:\nretry:  1\ndata: x\n\n", want: blocks{`data="x"`}},
		"retry with a tail":    {in: "retry: 99999999999999999999999x\ndata: x\n\n", want: blocks{`data="x"`}},
		"retry of ages":        {in: "retry: 99999999999999999999999\ndata: x\n\n", want: blocks{`retry=596h31m23.647s data="x"`}},
		"no empty line":        {in: "id: 1\ndata: x\n"},
		"no end of line":       {in: "data: a\n\nid: 2\ndata: x\n", want: blocks{`data="a"`}},
		"cut in the empty end": {in: "data: a\r\n\r", want: blocks{`data="a"`}},
		"cut in an id":         {in: "data: a\n\nid: 2", want: blocks{`data="a"`}},
		"cut retry":            {in: "retry: 2", want: nil},
		"largest":              {in: "data: " + strings.Repeat("x", testLimit) + "\n\n", want: blocks{`data="` + strings.Repeat("x", testLimit) + `"`}},
		"too large":            {in: "data: " + strings.Repeat("x", testLimit+1) + "\n\n", end: errLarge},
		"too large in lines":   {in: strings.Repeat("data: 1234567\n", testLimit/8+1) + "\n", end: errLarge},
		"too many empty lines": {in: strings.Repeat("data\n", testLimit+2) + "\n", end: errLarge},
		"line without end":     {in: ":" + strings.Repeat("x", 10_000), end: errLarge},
		"comments for ever":    {in: strings.Repeat(": ping\n", 1000) + "data: x\n\n", want: blocks{`data="x"`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.end == nil {
				test.end = io.EOF
			}
			for how, in := range pieces(test.in) {
				got, err := readBlocks(in, testLimit)
				if strings.Join(got, "; ") != strings.Join(test.want, "; ") || !errors.Is(err, test.end) {
					t.Errorf("%s: %v, %v; want %v, %v", how, got, err, test.want, test.end)
				}
			}
		})
	}
}

// A line is there when its CR is: the LF may be long in coming.
func TestEventReader_doesNotWaitForLF(t *testing.T) {
	t.Parallel()
	in, w := io.Pipe()
	go func() { _, _ = w.Write([]byte("data: x\r\n\r")) }()
	r := newEventReader(in, testLimit)
	if b, err := r.next(); err != nil || string(b.data) != "x" {
		t.Fatalf("%q, %v", b.data, err)
	}
	go func() {
		_, _ = w.Write([]byte("\ndata: y\n\n"))
		_ = w.Close()
	}()
	if b, err := r.next(); err != nil || string(b.data) != "y" {
		t.Fatalf("%q, %v", b.data, err)
	}
}

func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		"retry: 2000\nid: e.5\n: ping\n\nid: e.6\ndata: {\"Insert\":{},\"seq\":1}\n\n",
		"\ufeffdata: a\rdata: b\r\n\r\nid\n\n:\n\nevent: x\ndata\n\n",
		"data: a\n\rid: \x00\ndata:b\n\n\r\r\n\n",
		"retry: 10\nretry: x\nretry: 5000000000\n\n\ndata:  \n\n",
		"data: " + strings.Repeat("y", testLimit) + "\n\ndata: " + strings.Repeat("z", testLimit) + "z\n\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		want, large := reference(in)
		for how, r := range pieces(string(in)) {
			got, err := readBlocks(r, testLimit)
			if errors.Is(err, errLarge) {
				// What is too large for the reader, the reference says more of.
				if !large {
					t.Fatalf("%s: %v", how, err)
				}
				continue
			}
			if !errors.Is(err, io.EOF) || large {
				t.Fatalf("%s: %v, large %v", how, err, large)
			}
			if strings.Join(got, "; ") != strings.Join(want, "; ") {
				t.Fatalf("%s: %v, want %v", how, got, want)
			}
		}
	})
}

// reference reads a whole stream the simple way.
func reference(in []byte) (blocks []string, large bool) {
	text := strings.TrimPrefix(string(in), "\ufeff")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		extra := 0
		if i == 0 && strings.HasPrefix(string(in), "\ufeff") {
			extra = 3
		}
		large = large || len(line)+extra > testLimit+len("data: ")
	}
	retry := ""
	var data, event, id []string
	for _, line := range lines[:len(lines)-1] {
		if line == "" {
			if data != nil || id != nil {
				blocks = append(blocks, describe(event, id, data, retry))
			}
			data, event, id = nil, nil, nil
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "data":
			data = append(data, value)
			large = large || len(strings.Join(data, "\n")) > testLimit
		case "event":
			event = []string{value}
		case "id":
			if !strings.Contains(value, "\x00") {
				id = []string{value}
			}
		case "retry":
			if value != "" && strings.Trim(value, "0123456789") == "" {
				ms, err := strconv.Atoi(value)
				if err != nil || ms > 1<<31-1 {
					ms = 1<<31 - 1
				}
				retry = (time.Duration(ms) * time.Millisecond).String()
			}
		}
	}
	return blocks, large
}

// pieces returns readers of the same text that give more and less at a time.
func pieces(text string) map[string]io.Reader {
	return map[string]io.Reader{
		"whole":        strings.NewReader(text),
		"byte by byte": iotest.OneByteReader(strings.NewReader(text)),
		"halves":       iotest.HalfReader(strings.NewReader(text)),
		"with its end": iotest.DataErrReader(bytes.NewReader([]byte(text))),
	}
}

func readBlocks(in io.Reader, limit int) ([]string, error) {
	var all []string
	r := newEventReader(in, limit)
	for {
		b, err := r.next()
		if err != nil {
			return all, err
		}
		var event, id, data []string
		retry := ""
		if b.event != "" {
			event = []string{b.event}
		}
		if b.hasID {
			id = []string{b.id}
		}
		if b.data != nil {
			data = []string{string(b.data)}
		}
		if r.retry >= 0 {
			retry = r.retry.String()
		}
		all = append(all, describe(event, id, data, retry))
	}
}

func describe(event, id, data []string, retry string) string {
	var parts []string
	if len(event) > 0 && event[0] != "" {
		parts = append(parts, fmt.Sprintf("event=%q", event[0]))
	}
	if id != nil {
		parts = append(parts, fmt.Sprintf("id=%q", id[0]))
	}
	if retry != "" {
		parts = append(parts, "retry="+retry)
	}
	if data != nil {
		parts = append(parts, fmt.Sprintf("data=%q", strings.Join(data, "\n")))
	}
	return strings.Join(parts, " ")
}
