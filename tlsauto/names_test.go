package tlsauto

import (
	"strings"
	"testing"
)

func TestNormalizeName(t *testing.T) {
	t.Parallel()
	label63 := strings.Repeat("a", 63)
	for _, tt := range []struct{ name, want string }{
		{"Example.COM.", "example.com"},
		{"localhost", "localhost"},
		{"*.Example.com", "*.example.com"},
		{"*.bücher.example.", "*.xn--bcher-kva.example"},
		{"straße.example", "xn--strae-oqa.example"},
		{"1.2.3.4", "1.2.3.4"},
		{"::FFFF:1.2.3.4", "1.2.3.4"},
		{"[::1]", "::1"},
		{"0:0::1", "::1"},
		{label63 + ".example", label63 + ".example"},
		{"a1.2b", "a1.2b"},

		{"", ""},
		{".", ""},
		{"*", ""},
		{"*.", ""},
		{"*.com", ""},
		{"*.*.example.com", ""},
		{"a.*.example.com", ""},
		{"a*.example.com", ""},
		{"*.1.2.3.4", ""},
		{"example..com", ""},
		{".example.com", ""},
		{"example.com..", ""},
		{"example.com:443", ""},
		{"https://example.com", ""},
		{"a_b.example.com", ""},
		{"a b.example.com", ""},
		{"-a.example.com", ""},
		{"a-.example.com", ""},
		{"ab--c.example.com", ""},
		{"xn--a.example", ""},
		{"xn--bücher.example", ""},
		{"a" + label63 + ".example", ""},
		{strings.Repeat(label63+".", 4), ""},            // 255 characters
		{"*." + strings.Repeat("abcd.", 50) + "ab", ""}, // 254 with the "*."
		{"256.1.1.1", ""},
		{"1.2.3", ""},
		{"[1.2.3.4]", ""},
		{"[::1", ""},
		{"]::1[", ""},
		{"fe80::1%eth0", ""},
		{"a\xff.example", ""},
		{strings.Repeat("ü.", 10_000), ""},
		{strings.Repeat("ü", 64) + ".example", ""},
	} {
		got, err := NormalizeName(tt.name)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("NormalizeName(%.80q) = %.80q, %.120v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestHostName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ host, want string }{
		{"Example.com", "example.com"},
		{"example.com:8443", "example.com"},
		{"example.com.:443", "example.com"},
		{"[::1]:443", "::1"},
		{"[::1]", "::1"},
		{"127.0.0.1:80", "127.0.0.1"},
		{"a_b.example.com", "a_b.example.com"},
		{"*.example.com", ""},
		{"", ""},
		{":80", ""},
		{"example.com:80:80", ""},
		{"evil\r\n.example.com", ""},
		{"user@example.com", ""},
	} {
		if got := hostName(tt.host); got != tt.want {
			t.Errorf("hostName(%q) = %q, want %q", tt.host, got, tt.want)
		}
	}
}

const asciiNames = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.:[]"

func FuzzLookupName(f *testing.F) {
	for _, s := range []string{"example.com", "EXAMPLE.com.", "*.example.com", "bücher.example", "xn--bcher-kva.example",
		"1.2.3.4", "::ffff:1.2.3.4", "[::1]", "fe80::1%1", "a..b", "１.２.３.４", "a。b", "a_b.c", "ẞ.de", "x\u00ad.com", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := NormalizeName(s); err == nil {
			if again, err := NormalizeName(n); again != n || err != nil {
				t.Errorf("NormalizeName(%q) = %q, and of that it is %q, %v", s, n, again, err)
			}
			want := n
			if isWildcard(n) {
				want = ""
			}
			if got := lookupName(n); got != want {
				t.Errorf("lookupName(%q) = %q, want %q", n, got, want)
			}
			if got := lookupName(s); got != want && strings.Trim(s, asciiNames) == "" {
				t.Errorf("lookupName(%q) = %q, want %q", s, got, want)
			}
			if len(n) > maxName || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-.:*") != "" {
				t.Errorf("NormalizeName(%q) = %q", s, n)
			}
		}
		n := lookupName(s)
		if again := lookupName(n); again != n {
			t.Errorf("lookupName(%q) = %q, and of that it is %q", s, n, again)
		}
		if len(n) > maxName || strings.Contains(n, "*") || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-._:") != "" {
			t.Errorf("lookupName(%q) = %q", s, n)
		}
		if n != "" && isIP(n) == isDNSName(n) {
			t.Errorf("%q is both a name and an address, or neither", n)
		}
	})
}
