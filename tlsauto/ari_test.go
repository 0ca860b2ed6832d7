package tlsauto_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// The example of RFC 9773, section 4.1, and serial numbers whose bytes need care.
func TestRenewalInfoID(t *testing.T) {
	t.Parallel()
	keyID := []byte{
		0x69, 0x88, 0x5B, 0x6B, 0x87, 0x46, 0x40, 0x41, 0xE1, 0xB3,
		0x7B, 0x84, 0x7B, 0xA0, 0xAE, 0x2C, 0xDE, 0x01, 0xC8, 0xD4,
	}
	for _, test := range []struct {
		serial int64
		want   string
	}{
		{0x87654321, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"},
		{0x7f, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.fw"},
		{0x80, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIA"},
		{0, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AA"},
	} {
		ca := newFakeACME(t, func(ca *fakeACME) { ca.advice = true })
		d := directoryOf(ca)
		leaf := &x509.Certificate{AuthorityKeyId: keyID, SerialNumber: big.NewInt(test.serial)}
		info, err := d.RenewalInfo(t.Context(), leaf, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := ca.requests[len(ca.requests)-1]; got != "/advice/"+test.want {
			t.Errorf("serial %x: path %s, want %s", test.serial, got, test.want)
		}
		if !info.Start.Equal(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)) || !info.End.Equal(time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)) ||
			info.AskAgain != 6*time.Hour || info.ExplanationURL != "https://example.com/why" {
			t.Errorf("%+v", info)
		}
	}
}

func TestRenewalInfoAnswers(t *testing.T) {
	t.Parallel()
	window := func(start, end string) string {
		return fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q},"explanationURL":"javascript:alert(1)"}`, start, end)
	}
	good := window("2026-01-01T00:00:00Z", "2026-01-02T00:00:00.5+01:00")
	for name, test := range map[string]struct {
		status int
		retry  string
		body   string
		says   string // "": it is advice
		ask    time.Duration
		after  time.Duration
	}{
		"good":         {body: good},
		"soon":         {body: good, retry: "1", ask: time.Minute},
		"late":         {body: good, retry: "9999999", ask: 24 * time.Hour},
		"nonsense":     {body: good, retry: "soon"},
		"end before":   {body: window("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"), says: "the window from"},
		"empty window": {body: window("2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z"), says: "the window from"},
		"no window":    {body: `{}`, says: "the window from"},
		"no dates":     {body: window("x", "y"), says: "not as expected"},
		"no JSON":      {body: "<html>\x1b[2J", says: "not as expected"},
		"long":         {body: `{"x":"` + strings.Repeat("x", 64<<10) + `"}`, says: "more than 65536 bytes"},
		"unknown":      {status: 404, body: "{}", says: "404 Not Found"},
		"limit":        {status: 429, retry: "600", body: "{}", says: "429", after: 10 * time.Minute},
		"down":         {status: 503, body: "{}", says: "503"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, func(ca *fakeACME) {
				ca.advice = true
				ca.intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasPrefix(r.URL.Path, "/advice/") {
						return false
					}
					if test.retry != "" {
						w.Header().Set("Retry-After", test.retry)
					}
					if test.status != 0 {
						w.WriteHeader(test.status)
					}
					respond(w, test.body)
					return true
				}
			})
			issuer := &tlsauto.Autocert{Directory: directoryOf(ca)}
			info, err := issuer.RenewalInfo(t.Context(), someLeaf(), nil)
			if test.says != "" {
				if err == nil || !strings.Contains(err.Error(), test.says) || errors.Is(err, errors.ErrUnsupported) || len(err.Error()) > 1000 || strings.Contains(err.Error(), "\x1b") {
					t.Errorf("error %v, want %q", err, test.says)
				}
				var after *tlsauto.RetryAfterError
				if errors.As(err, &after); (after == nil) != (test.after == 0) || after != nil && after.After != test.after {
					t.Errorf("error %#v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if info.AskAgain != test.ask || info.ExplanationURL != "" {
				t.Errorf("%+v", info)
			}
		})
	}
}

func TestRenewalInfoIsNotThere(t *testing.T) {
	t.Parallel()
	ca := newFakeACME(t, nil)
	issuer := &tlsauto.ACME{Directory: directoryOf(ca)}
	if _, err := issuer.RenewalInfo(t.Context(), someLeaf(), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("error %v", err)
	}
	if _, err := issuer.RenewalInfo(t.Context(), &x509.Certificate{SerialNumber: big.NewInt(1)}, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("error %v", err)
	}
}

func someLeaf() *x509.Certificate {
	return &x509.Certificate{AuthorityKeyId: []byte{1, 2, 3}, SerialNumber: big.NewInt(42)}
}

var _ tlsauto.RenewalAdviser = (*tlsauto.ACME)(nil)
var _ tlsauto.RenewalAdviser = (*tlsauto.Autocert)(nil)
