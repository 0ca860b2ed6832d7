package totp_test

import (
	"bytes"
	"image/png"
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/totp"
)

const encoded = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"

func TestURL(t *testing.T) {
	t.Parallel()
	const tail = "secret=" + encoded
	const rest = "&algorithm=SHA1&digits=6&period=30"
	for _, test := range []struct{ issuer, account, want string }{
		{"Bedplate", "alice", "otpauth://totp/Bedplate:alice?" + tail + "&issuer=Bedplate" + rest},
		{"My App", "alice@example.org", "otpauth://totp/My%20App:alice%40example.org?" + tail + "&issuer=My%20App" + rest},
		{"A&B=C", "a:b/c?d#e%f+g", "otpauth://totp/A%26B%3DC:a%3Ab%2Fc%3Fd%23e%25f%2Bg?" + tail + "&issuer=A%26B%3DC" + rest},
		{"", "zoë", "otpauth://totp/zo%C3%AB?" + tail + rest},
		{"X", "", "otpauth://totp/X:?" + tail + "&issuer=X" + rest},
	} {
		got := totp.URL(test.issuer, test.account, secret)
		if got != test.want {
			t.Errorf("URL(%q, %q):\n%s, want\n%s", test.issuer, test.account, got, test.want)
		}
		checkRoundTrip(t, got, test.issuer, test.account)
	}
}

func checkRoundTrip(t *testing.T, made, issuer, account string) {
	t.Helper()
	got, err := totp.ParseURL(made)
	if err != nil || !bytes.Equal(got, secret) {
		t.Errorf("parsing %q: %x, %v", made, got, err)
	}
	u, err := url.Parse(made)
	if err != nil {
		t.Errorf("parsing %q: %v", made, err)
		return
	}
	want := "/" + account
	if issuer != "" {
		want = "/" + issuer + ":" + account
	}
	if u.Path != want || u.Query().Get("issuer") != issuer {
		t.Errorf("%q is read as %q of issuer %q, want %q of %q", made, u.Path, u.Query().Get("issuer"), want, issuer)
	}
}

func TestURLIsBounded(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"x", " ", "ä", "漢", "\xff", "😀"} {
		long := strings.Repeat(s, 10000)
		made := totp.URL(long, long, bytes.Repeat([]byte{1}, 64))
		if _, err := totp.ParseURL(made); err != nil {
			t.Errorf("a name of many %q: %d bytes, %v", s, len(made), err)
		}
		if u, err := url.Parse(made); err != nil || strings.Trim(u.Path, s+":/") != "" {
			t.Errorf("a name of many %q is cut within a character: %v", s, err)
		}
		if _, err := totp.PNG(made); err != nil {
			t.Errorf("a name of many %q: %v", s, err)
		}
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"otpauth://totp/TrailBase:alice%40trailbase.io?secret=" + encoded + "&issuer=TrailBase",
		"otpauth://totp/TrailBase:alice@trailbase.io?issuer=TrailBase&secret=" + strings.ToLower(encoded),
		"OTPAUTH://TOTP/x?secret=" + encoded,
		"otpauth://totp/?secret=" + encoded + "&algorithm=sha1&digits=6&period=30&image=x",
		"otpauth://totp?secret=" + encoded + "%3D%3D",
		"otpauth://totp/x?secret=" + strings.ReplaceAll(encoded, "GNBV", "+GNBV+"),
	} {
		got, err := totp.ParseURL(s)
		if err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%q: %x, %v", s, got, err)
		}
	}
	const base = "otpauth://totp/x?secret=" + encoded
	for _, s := range []string{
		"", "x", encoded, "://", "otpauth:totp?secret=" + encoded, "https://totp/x?secret=" + encoded,
		"otpauth://hotp/x?counter=1&secret=" + encoded, "otpauth://x@totp/x?secret=" + encoded, "otpauth://totp:1/x?secret=" + encoded,
		"otpauth://totp/x", "otpauth://totp/x?secret=", "otpauth://totp/x?secret=GEZDGNBVGY3TQOI", "otpauth://totp/x?secret=!" + encoded,
		"otpauth://totp/x#?secret=" + encoded, "otpauth://totp/%zz?secret=" + encoded, base + ";x=1", base + "&x=%zz",
		base + "&secret=" + encoded, base + "&algorithm=SHA256", base + "&digits=8", base + "&period=60",
		base + "&digits=6&digits=8", base + "&digits=", base + "&period=030",
		base + "&x=" + strings.Repeat("x", 1024),
	} {
		if got, err := totp.ParseURL(s); err == nil {
			t.Errorf("%.100q is parsed as %x", s, got)
		} else if strings.Contains(err.Error(), "GEZD") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}

func TestPNG(t *testing.T) {
	t.Parallel()
	data, err := totp.PNG(totp.URL("Bedplate", "alice@example.org", secret))
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	size := img.Bounds().Size()
	if size.X != size.Y || size.X < 200 || size.X > 1000 || len(data) > 20<<10 {
		t.Errorf("an image of %v in %d bytes", size, len(data))
	}
	if _, err := totp.PNG(strings.Repeat("x", 1025)); err == nil {
		t.Error("more than 1 KiB is not refused")
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("otpauth://totp/Bedplate:alice?secret=" + encoded + "&issuer=Bedplate&algorithm=SHA1&digits=6&period=30")
	f.Add("otpauth://totp/x?secret=gezd+gnbv+gy3t+qojq%3D")
	f.Add("otpauth://hotp/x?secret=" + encoded + "&counter=1")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := totp.ParseURL(s)
		if err != nil {
			if got != nil {
				t.Errorf("%q: a secret and an error", s)
			}
			return
		}
		if len(s) > 1024 || len(got) < 10 || len(got) > 64 {
			t.Errorf("%q: a secret of %d bytes", s, len(got))
		}
		again, err := totp.ParseURL(totp.URL("Bedplate", s, got))
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("%q: %x, parsed again %x, %v", s, got, again, err)
		}
		if decoded, err := totp.Decode(totp.Encode(got)); err != nil || !bytes.Equal(decoded, got) {
			t.Errorf("%q: %x, decoded again %x, %v", s, got, decoded, err)
		}
	})
}
