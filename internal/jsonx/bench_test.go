package jsonx_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/jsonx"
)

// body170 is a request body of the usual kind and size.
const body170 = `{"room":"AZH8mYTFd5OexZn4K10jCA==","data":"The quick brown fox jumps over the lazy dog","rank":42,` +
	`"score":4.25,"pinned":true,"reply_to":null,"tags":["a","b"],"lang":"en"}`

func BenchmarkParseObject(b *testing.B) {
	bodies := map[string][]byte{
		"170B":     []byte(body170),
		"text64K":  []byte(`{"text":"` + strings.Repeat("plain ascii text ", 4096) + `"}`),
		"utf8_64K": []byte(`{"text":"` + strings.Repeat("größere Übung ", 4096) + `"}`),
		"1000keys": object(1000, func(i int) string { return fmt.Sprintf("key%d", i) }),
	}
	for _, name := range []string{"170B", "text64K", "utf8_64K", "1000keys"} {
		body := bodies[name]
		b.Run(name+"/jsonx", func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if err := jsonx.ParseObject(body, func(name []byte, v jsonx.Value) error {
					n += len(name)
					return nil
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/encoding_json", func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				var m map[string]json.RawMessage
				if err := json.Unmarshal(body, &m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendString(b *testing.B) {
	for _, text := range []struct{ name, text string }{
		{"short", "hello world"},
		{"ascii", strings.Repeat("plain ascii text ", 16)},
		{"quotes", strings.Repeat(`say "hi" and go `, 16)},
		{"utf8", strings.Repeat("größere Übung ", 16)},
	} {
		b.Run(text.name+"/jsonx", func(b *testing.B) {
			b.SetBytes(int64(len(text.text)))
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf = jsonx.AppendString(buf[:0], text.text)
			}
		})
		b.Run(text.name+"/encoding_json", func(b *testing.B) {
			b.SetBytes(int64(len(text.text)))
			b.ReportAllocs()
			var buf bytes.Buffer
			enc := json.NewEncoder(&buf)
			enc.SetEscapeHTML(false)
			for b.Loop() {
				buf.Reset()
				if err := enc.Encode(text.text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendFloat(b *testing.B) {
	for _, f := range []float64{5, 3.14159, 1e300} {
		b.Run(fmt.Sprintf("%g/jsonx", f), func(b *testing.B) {
			var buf []byte
			for b.Loop() {
				buf = jsonx.AppendFloat(buf[:0], f)
			}
		})
		b.Run(fmt.Sprintf("%g/encoding_json", f), func(b *testing.B) {
			for b.Loop() {
				if _, err := json.Marshal(f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendCompact(b *testing.B) {
	text := []byte(`{"a": [1, 2, {"b": "` + strings.Repeat("text ", 20) + `"}], "c": null}`)
	b.Run("jsonx", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf, _ = jsonx.AppendCompact(buf[:0], text)
		}
	})
	b.Run("encoding_json", func(b *testing.B) {
		b.ReportAllocs()
		var buf bytes.Buffer
		for b.Loop() {
			buf.Reset()
			if err := json.Compact(&buf, text); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkParseHostile reads texts of 1 MiB that are as expensive as can be.
// The throughput of each must stay far from zero.
func BenchmarkParseHostile(b *testing.B) {
	fill := func(element []byte) []byte {
		n := (1 << 20) / (len(element) + 1)
		return append(append([]byte("["), bytes.Repeat(append(element, ','), n)...), '0', ']')
	}
	number := func(format string) func(int) string {
		return func(i int) string { return fmt.Sprintf(format, i) }
	}
	for _, bench := range []struct {
		name string
		text []byte
	}{
		{"16names", fill(object(16, number("%02d")))},
		{"17names", fill(object(17, number("%02d")))},
		{"4096names", fill(object(4096, number("%d")))},
		{"escaped_names", fill(object(4096, number(`\u0061%04d`)))},
		{"long_names", object(1024, number(strings.Repeat("a", 1000)+"%04d"))},
		{"arrays", fill([]byte(strings.Repeat("[", 31) + strings.Repeat("]", 31)))},
		{"objects", fill([]byte(strings.Repeat(`{"":`, 31) + "1" + strings.Repeat("}", 31)))},
		{"exponents", fill([]byte("1e308"))},
		{"digits", []byte("0." + strings.Repeat("9", 1<<20) + "e5")},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(bench.text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := jsonx.Parse(bench.text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
