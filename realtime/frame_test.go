package realtime

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAppendFrame(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		f             frame
		plain, idLast string
	}{
		"data":              {frame{data: []byte(`{"a":1}`)}, "data: {\"a\":1}\n\n", "data: {\"a\":1}\n\n"},
		"data and id":       {frame{id: "k3.7", data: []byte("1")}, "id: k3.7\ndata: 1\n\n", "data: 1\n\nid: k3.7\n\n"},
		"everything":        {frame{id: "5", event: "move", data: []byte("1"), retry: time.Second}, "retry: 1000\nid: 5\nevent: move\ndata: 1\n\n", "data: 1\n\nretry: 1000\n\nid: 5\n\n"},
		"comment":           {frame{comment: "ping"}, ": ping\n\n", ": ping\n\n"},
		"empty comment":     {frame{}, ":\n\n", ":\n\n"},
		"comment and id":    {frame{id: "5", comment: "ping"}, "id: 5\n: ping\n\n", ": ping\n\nid: 5\n\n"},
		"comment and all":   {frame{id: "5", comment: "ping", retry: 2 * time.Second}, "retry: 2000\nid: 5\n: ping\n\n", ": ping\n\nretry: 2000\n\nid: 5\n\n"},
		"comment and retry": {frame{comment: "ping", retry: 2 * time.Second}, "retry: 2000\n: ping\n\n", ": ping\n\nretry: 2000\n\n"},
		"id":                {frame{id: "5"}, "id: 5\n\n", "id: 5\n\n"},
		"retry":             {frame{retry: time.Minute}, "retry: 60000\n\n", "retry: 60000\n\n"},
		"short retry":       {frame{retry: time.Microsecond}, "retry: 1\n\n", "retry: 1\n\n"},
		"negative retry":    {frame{retry: -time.Second}, ":\n\n", ":\n\n"},
		"event, no data":    {frame{event: "move"}, ":\n\n", ":\n\n"},
		"data and comment":  {frame{data: []byte("1"), comment: "ping"}, "data: 1\n\n", "data: 1\n\n"},
		"data with a colon": {frame{data: []byte(":x")}, "data: :x\n\n", "data: :x\n\n"},
		"data with a space": {frame{data: []byte(" x")}, "data:  x\n\n", "data:  x\n\n"},

		"hostile id":      {frame{id: "1\ndata: x\n\n", data: []byte("1")}, "id: 1 data: x  \ndata: 1\n\n", "data: 1\n\nid: 1 data: x  \n\n"},
		"hostile event":   {frame{event: "a\r\rid: 9\x00", data: []byte("1")}, "event: a  id: 9 \ndata: 1\n\n", "data: 1\n\n"},
		"hostile data":    {frame{data: []byte("1\r\n\r\nid: 9\n\x00")}, "data: 1    id: 9  \n\n", "data: 1    id: 9  \n\n"},
		"hostile comment": {frame{comment: "x\n\ndata: 1\r\x00"}, ": x  data: 1  \n\n", ": x  data: 1  \n\n"},
		"only line ends":  {frame{id: "\n", data: []byte("\r\n")}, "id:  \ndata:   \n\n", "data:   \n\nid:  \n\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := fmt.Sprintf("%+v", test.f)
			for idLast, want := range map[bool]string{false: test.plain, true: test.idLast} {
				if got := appendFrame([]byte("\n\n"), &test.f, idLast); string(got) != "\n\n"+want {
					t.Errorf("idLast %v: got %q, want %q", idLast, got[2:], want)
				}
			}
			if after := fmt.Sprintf("%+v", test.f); after != before {
				t.Errorf("the frame was %s, is %s", before, after)
			}
		})
	}
}

// Line ends in JSON are of no importance.
func TestAppendFrameIndentedJSON(t *testing.T) {
	t.Parallel()
	want := map[string]any{"a": "1\n2", "b": []any{true}}
	indented, err := json.MarshalIndent(want, "\r\n", "\t")
	if err != nil {
		t.Fatal(err)
	}
	line, ok := bytes.CutPrefix(appendFrame(nil, &frame{data: indented}, true), []byte("data: "))
	if !ok || bytes.Count(line, []byte("\n")) != 2 {
		t.Fatalf("got %q", line)
	}
	var got map[string]any
	if err := json.Unmarshal(line, &got); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzAppendFrame(f *testing.F) {
	f.Add("1", "move", "{}", "", true)
	f.Add("1\r\nid: 2", "a\n\nb", "x\rdata: y\x00", "", false)
	f.Add("", "", "", "\n\ndata: x", false)
	f.Fuzz(func(t *testing.T, id, event, data, comment string, idLast bool) {
		got := string(appendFrame(nil, &frame{id: id, event: event, data: []byte(data), comment: comment}, idLast))
		if strings.ContainsAny(got, "\r\x00") {
			t.Errorf("got %q", got)
		}
		blocks := strings.SplitAfter(got, "\n\n")
		if last := len(blocks) - 1; blocks[last] != "" {
			t.Fatalf("does not end in an empty line: %q", got)
		}
		fields := make(map[string]int)
		for line := range strings.Lines(got) {
			if line != "\n" {
				name, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
				fields[name]++
			}
		}
		for name, n := range fields {
			if n > 1 || !slices.Contains([]string{"", "id", "event", "data"}, name) {
				t.Errorf("%d of %q in %q", n, name, got)
			}
		}
		if (fields["data"] == 1) != (data != "") || (fields["id"] == 1) != (id != "") {
			t.Errorf("fields %v in %q", fields, got)
		}
		if idLast && data != "" && !strings.HasPrefix(got, "data: ") {
			t.Errorf("does not begin with its data: %q", got)
		}
	})
}

func TestWriteFrames(t *testing.T) { // not parallel: it counts allocations
	for _, idLast := range []bool{false, true} {
		var frames []frame
		var want []byte
		for i := range 700 {
			size := i
			if i%100 == 99 {
				size = 20 << 10 * (i / 100)
			}
			f := frame{id: fmt.Sprint(i), data: bytes.Repeat([]byte("x"), size+1)}
			frames = append(frames, f)
			want = appendFrame(want, &f, idLast)
		}

		var got []byte
		writes := 0
		buf, err := writeFrames(nil, frames, idLast, func(p []byte) error {
			got = append(got, p...)
			writes++
			if !bytes.HasSuffix(p, []byte("\n\n")) {
				t.Errorf("idLast %v: write %d ends in %q", idLast, writes, p[max(0, len(p)-20):])
			}
			if events := bytes.Count(p, []byte("data: ")); len(p) > writeLimit(idLast) && events != 1 {
				t.Errorf("idLast %v: a write of %d bytes has %d events", idLast, len(p), events)
			}
			return nil
		})
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("idLast %v: %d bytes, want %d; error %v", idLast, len(got), len(want), err)
		}
		if least := len(want) / writeLimit(idLast); writes > 2*least+20 {
			t.Errorf("idLast %v: %d writes for %d bytes", idLast, writes, len(want))
		}

		if allocs := testing.AllocsPerRun(10, func() {
			buf, _ = writeFrames(buf, frames, idLast, func([]byte) error { return nil })
		}); allocs > 0 {
			t.Errorf("idLast %v: %v allocations with a buffer", idLast, allocs)
		}
	}

	called := false
	if _, err := writeFrames(nil, nil, false, func([]byte) error { called = true; return nil }); called || err != nil {
		t.Errorf("no frames: written %v, error %v", called, err)
	}
}
