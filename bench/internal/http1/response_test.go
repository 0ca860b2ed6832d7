package http1_test

import (
	"strings"
	"testing"

	"github.com/bedplate/bedplate/bench/internal/http1"
)

// TestResponseFraming feeds each answer whole, byte by byte and cut in two at
// every place.
func TestResponseFraming(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, answer string
		status       int
		excerpt      string
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, ""},
		{"empty", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", 204, ""},
		{"error", "HTTP/1.1 403 Forbidden\r\ncontent-length: 6\r\n\r\ndenied", 403, "denied"},
		{
			"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
				"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n", 200, "",
		},
		{
			"chunked error with trailer", "HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n" +
				"3\r\nbad\r\n0\r\nX-Late: 1\r\n\r\n", 500, "bad",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			check := func(r *http1.Response, pieces ...string) {
				t.Helper()
				r.Reset()
				for i, piece := range pieces {
					done, err := r.Feed([]byte(piece))
					if err != nil {
						t.Fatalf("piece %d of %q: %v", i, pieces, err)
					}
					if want := i == len(pieces)-1; done != want {
						t.Fatalf("piece %d of %q: done = %t", i, pieces, done)
					}
				}
				if r.Status != tt.status || string(r.Excerpt) != tt.excerpt {
					t.Fatalf("got %d %q, want %d %q", r.Status, r.Excerpt, tt.status, tt.excerpt)
				}
			}
			var r http1.Response
			check(&r, tt.answer)
			check(&r, strings.Split(tt.answer, "")...)
			for i := 1; i < len(tt.answer); i++ {
				check(&r, tt.answer[:i], tt.answer[i:])
			}
		})
	}
}

func TestResponseRefuses(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{
		"HTTP/1.1 abc OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\nuntil the connection closes",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
	} {
		var r http1.Response
		if _, err := r.Feed([]byte(answer)); err == nil {
			t.Errorf("%q was accepted", answer)
		}
	}
}

// TestResponseBody checks that the framing is gone from what Body gets.
func TestResponseBody(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n\nworld\r\n"
	for i := 1; i < len(answer); i++ {
		var got []byte
		r := http1.Response{Body: func(piece []byte) error {
			got = append(got, piece...)
			return nil
		}}
		for _, piece := range []string{answer[:i], answer[i:]} {
			if done, err := r.Feed([]byte(piece)); done || err != nil {
				t.Fatalf("cut at %d: done = %t, err = %v", i, done, err)
			}
		}
		if string(got) != "hello\nworld" {
			t.Fatalf("cut at %d: got %q", i, got)
		}
	}
}
