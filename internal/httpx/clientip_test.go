package httpx_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/httpx"
)

func TestClientIP(t *testing.T) {
	t.Parallel()
	const (
		proxy = "10.0.0.1:4000"
		peer  = "10.0.0.1"
	)
	networks := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	trusted := func(n int) httpx.ClientIP { return httpx.ClientIP{Proxies: n, Trusted: networks} }
	behind := func(n int) httpx.ClientIP { return httpx.ClientIP{Proxies: n} }

	for _, test := range []struct {
		name   string
		c      httpx.ClientIP
		remote string
		lines  []string // of X-Forwarded-For
		want   string   // "" for none
	}{
		{"no proxy", httpx.ClientIP{}, "203.0.113.9:1", nil, "203.0.113.9"},
		{"no proxy, spoofed entry", httpx.ClientIP{}, "203.0.113.9:1", []string{"6.6.6.6"}, "203.0.113.9"},
		{"no proxy, networks without effect", trusted(0), proxy, []string{"6.6.6.6"}, peer},
		{"negative", behind(-1), proxy, []string{"6.6.6.6"}, peer},

		{"one proxy, one entry", behind(1), proxy, []string{"203.0.113.9"}, "203.0.113.9"},
		{"one proxy, spoofed entry first", behind(1), proxy, []string{"6.6.6.6, 203.0.113.9"}, "203.0.113.9"},
		{"one proxy, spoofed line first", behind(1), proxy, []string{"6.6.6.6", "203.0.113.9"}, "203.0.113.9"},
		{"one proxy, many spoofed", behind(1), proxy, []string{"6.6.6.6,7.7.7.7", "8.8.8.8,,", "9.9.9.9,203.0.113.9"}, "203.0.113.9"},
		{"one proxy, no header", behind(1), proxy, nil, peer},
		{"one proxy, empty header", behind(1), proxy, []string{""}, peer},
		{"one proxy, spoofed empty entries", behind(1), proxy, []string{",,, 203.0.113.9"}, "203.0.113.9"},
		{"one proxy, spoofed private address", behind(1), proxy, []string{"10.0.0.7, 203.0.113.9"}, "203.0.113.9"},

		{"two proxies", behind(2), proxy, []string{"203.0.113.9, 10.0.0.2"}, "203.0.113.9"},
		{"two proxies, a line each", behind(2), proxy, []string{"203.0.113.9", "10.0.0.2"}, "203.0.113.9"},
		{"two proxies, spoofed entry first", behind(2), proxy, []string{"6.6.6.6,203.0.113.9,10.0.0.2"}, "203.0.113.9"},
		{"two proxies, spoofed line first", behind(2), proxy, []string{"6.6.6.6", "203.0.113.9", "10.0.0.2"}, "203.0.113.9"},
		{"two proxies, one entry", behind(2), proxy, []string{"10.0.0.2"}, peer},
		{"two proxies, nearest appends nothing to read", behind(2), proxy, []string{"6.6.6.6, 203.0.113.9,"}, "203.0.113.9"},
		{"three proxies", behind(3), proxy, []string{"6.6.6.6, 203.0.113.9, 10.0.0.3", "10.0.0.2"}, "203.0.113.9"},
		{"three proxies, two entries", behind(3), proxy, []string{"10.0.0.3, 10.0.0.2"}, peer},

		{"trusted peer", trusted(1), proxy, []string{"6.6.6.6, 203.0.113.9"}, "203.0.113.9"},
		{"trusted mapped peer", trusted(1), "[::ffff:10.0.0.1]:1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"trusted IPv6 peer with zone", trusted(1), "[fd00::1%eth0]:1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"untrusted peer", trusted(1), "192.0.2.1:1", []string{"6.6.6.6"}, "192.0.2.1"},
		{"untrusted peer, trusted entry", trusted(1), "192.0.2.1:1", []string{"10.0.0.1"}, "192.0.2.1"},
		{"empty list of networks", httpx.ClientIP{Proxies: 1, Trusted: []netip.Prefix{}}, proxy, []string{"203.0.113.9"}, "203.0.113.9"},
		{"zero network trusts nobody", httpx.ClientIP{Proxies: 1, Trusted: []netip.Prefix{{}}}, proxy, []string{"203.0.113.9"}, peer},

		{"IPv6", behind(1), "[2001:db8::1]:1", []string{"2001:db8::9"}, "2001:db8::9"},
		{"IPv6 peer", behind(0), "[2001:db8::1]:1", nil, "2001:db8::1"},
		{"IPv6 peer with zone", behind(0), "[fe80::1%eth0]:1", nil, "fe80::1"},
		{"mapped peer", behind(0), "[::ffff:203.0.113.9]:1", nil, "203.0.113.9"},
		{"mapped entry", behind(1), proxy, []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"mapped entry with port", behind(1), proxy, []string{"[::ffff:203.0.113.9]:1"}, "203.0.113.9"},
		{"entry with port", behind(1), proxy, []string{"203.0.113.9:4711"}, "203.0.113.9"},
		{"IPv6 entry with port", behind(1), proxy, []string{"[2001:db8::9]:4711"}, "2001:db8::9"},
		{"IPv6 entry in brackets", behind(1), proxy, []string{"[2001:db8::9]"}, "2001:db8::9"},
		{"entry with zone", behind(1), proxy, []string{"fe80::9%eth0"}, "fe80::9"},
		{"entry with zone and port", behind(1), proxy, []string{"[fe80::9%eth0]:1"}, "fe80::9"},
		{"entry between spaces", behind(1), proxy, []string{"6.6.6.6 \t,\t 203.0.113.9 \t"}, "203.0.113.9"},

		{"entry unknown", behind(1), proxy, []string{"6.6.6.6, unknown"}, peer},
		{"entry obfuscated", behind(1), proxy, []string{"_hidden"}, peer},
		{"entry as in Forwarded", behind(1), proxy, []string{"for=203.0.113.9"}, peer},
		{"entry quoted", behind(1), proxy, []string{`"203.0.113.9"`}, peer},
		{"entry a name", behind(1), proxy, []string{"localhost:80"}, peer},
		{"entry with leading zeros", behind(1), proxy, []string{"203.000.113.009"}, peer},
		{"entry a network", behind(1), proxy, []string{"203.0.113.0/24"}, peer},
		{"entry cut", behind(1), proxy, []string{"203.0.113"}, peer},
		{"entry with bad port", behind(1), proxy, []string{"203.0.113.9:99999"}, peer},
		{"entry with half a bracket", behind(1), proxy, []string{"[2001:db8::9"}, peer},
		{"entry IPv4 in brackets", behind(1), proxy, []string{"[203.0.113.9]"}, peer},
		{"entry with empty brackets", behind(1), proxy, []string{"[]"}, peer},
		{"entry with a huge zone", behind(1), proxy, []string{"fe80::9%" + strings.Repeat("z", 1<<20)}, peer},

		{"Unix socket", httpx.ClientIP{}, "@", nil, ""},
		{"Unix socket, no address at all", httpx.ClientIP{}, "", nil, ""},
		{"Unix socket with path", httpx.ClientIP{}, "/run/app.sock", nil, ""},
		{"Unix socket, spoofed entry", httpx.ClientIP{}, "@", []string{"6.6.6.6"}, ""},
		{"Unix socket behind a proxy", behind(1), "@", []string{"6.6.6.6, 203.0.113.9"}, "203.0.113.9"},
		{"Unix socket behind a proxy, no header", behind(1), "@", nil, ""},
		{"Unix socket is in no network", trusted(1), "@", []string{"6.6.6.6"}, ""},
		{"peer without port", httpx.ClientIP{}, "203.0.113.9", nil, "203.0.113.9"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := &http.Request{RemoteAddr: test.remote, Header: http.Header{}}
			for _, line := range test.lines {
				r.Header.Add("X-Forwarded-For", line)
			}
			var want netip.Addr
			if test.want != "" {
				want = netip.MustParseAddr(test.want)
			}
			if got := test.c.Of(r); got != want {
				t.Errorf("Of = %v, want %v", got, want)
			}
		})
	}
}

func TestF9_OtherHeaders(t *testing.T) {
	t.Parallel()
	r := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{}}
	for _, name := range []string{
		"X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "Fastly-Client-IP", "X-Client-IP", "X-Cluster-Client-IP",
		"Client-IP", "X-Forwarded", "Forwarded-For", "X-Original-Forwarded-For", "X-Azure-ClientIP",
	} {
		r.Header.Set(name, "6.6.6.6")
	}
	r.Header.Set("Forwarded", "for=6.6.6.6")
	r.Header["x-forwarded-for"] = []string{"6.6.6.6"} // no server makes such a name
	for n := range 3 {
		if got := (httpx.ClientIP{Proxies: n}).Of(r); got != netip.MustParseAddr("10.0.0.1") {
			t.Errorf("%d proxies: Of = %v, want the peer", n, got)
		}
	}
	var none http.Request
	if got := (httpx.ClientIP{Proxies: 1}).Of(&none); got.IsValid() {
		t.Errorf("zero request: Of = %v, want none", got)
	}
}

// A long list is searched from the right, in place.
func TestF9_LongList(t *testing.T) {
	long := strings.Repeat("6.6.6.6, ", 10_000) + "203.0.113.9"
	lines := append(make([]string, 10_000), "203.0.113.9")
	for name, list := range map[string][]string{
		"entries": {long}, "lines": lines, "commas": {strings.Repeat(",", 1<<20) + "203.0.113.9"},
		"garbage": {strings.Repeat("x", 1<<20) + ",203.0.113.9"},
	} {
		r := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{"X-Forwarded-For": list}}
		for n, want := range map[int]string{1: "203.0.113.9", 1 << 30: "10.0.0.1"} {
			c := httpx.ClientIP{Proxies: n}
			if got := c.Of(r); got != netip.MustParseAddr(want) {
				t.Errorf("%s, %d proxies: Of = %v, want %s", name, n, got, want)
			}
			// One is the error that tells an address without port.
			if allocs := testing.AllocsPerRun(5, func() { c.Of(r) }); allocs > 1 {
				t.Errorf("%s, %d proxies: %v allocations, want one at most", name, n, allocs)
			}
		}
	}
}

func TestBucket(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"203.0.113.9":                    "203.0.113.9/32",
		"::ffff:203.0.113.9":             "203.0.113.9/32",
		"2001:db8:1:2::":                 "2001:db8:1:2::/64",
		"2001:db8:1:2:ffff:ffff:ffff:ff": "2001:db8:1:2::/64",
		"2001:db8:1:3::1":                "2001:db8:1:3::/64",
		"fe80::1%eth0":                   "fe80::/64",
		"::":                             "::/64",
		"0.0.0.0":                        "0.0.0.0/32",
	} {
		if got := httpx.Bucket(netip.MustParseAddr(addr)); got != netip.MustParsePrefix(want) {
			t.Errorf("Bucket(%s) = %v, want %s", addr, got, want)
		}
	}
	if got := httpx.Bucket(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("Bucket of no address = %v, want the zero Prefix", got)
	}
}

func FuzzClientIP(f *testing.F) {
	f.Add("10.0.0.1:1", "6.6.6.6", "[::1]:1, 203.0.113.9", 1)
	f.Add("@", "", ",,", 2)
	f.Add("[fe80::1%eth0]:1", "::ffff:1.2.3.4", "[::ffff:1.2.3.4%z]:1", 3)
	f.Fuzz(func(t *testing.T, remote, first, second string, n int) {
		c := httpx.ClientIP{Proxies: n}
		of := func(lines ...string) netip.Addr {
			return c.Of(&http.Request{RemoteAddr: remote, Header: http.Header{"X-Forwarded-For": lines}})
		}
		got := of(first, second)
		if got.Zone() != "" || got.Is4In6() {
			t.Fatalf("Of = %v", got)
		}
		if b := httpx.Bucket(got); b.IsValid() != got.IsValid() || got.IsValid() && !b.Contains(got) {
			t.Fatalf("Bucket(%v) = %v", got, b)
		}
		if joined := of(first + "," + second); joined != got {
			t.Fatalf("as one line %v, as two %v", joined, got)
		}
		// Entries to the left never matter once there are enough.
		if n > 0 && n <= strings.Count(second, ",")+1 {
			if spoofed := of("6.6.6.6", first, second); spoofed != got {
				t.Fatalf("entry on the left changes %v to %v", got, spoofed)
			}
		}
	})
}
