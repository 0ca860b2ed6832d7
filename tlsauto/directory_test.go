package tlsauto_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bedplate/bedplate/tlsauto"
)

func TestIssuerConfiguration(t *testing.T) {
	t.Parallel()
	type change func(c *tlsauto.Config, d *tlsauto.Directory)
	directory := map[string]struct {
		set  change
		says string
	}{
		"terms":        {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.AgreeTOS = false }, "AgreeTOS is not set"},
		"http":         {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.URL = "http://ca.example/dir" }, "is not https"},
		"other scheme": {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.URL = "ftp://127.0.0.1/dir" }, "is not https"},
		"no host":      {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.URL = "letsencrypt" }, "not the address of a directory"},
		"no URL":       {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.URL = "https://a b/" }, "not the address of a directory"},
		"user":         {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.URL = "https://u:secret@ca.example/" }, "has a user"},
		"fragment":     {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.URL = "https://ca.example/#x" }, "a fragment"},
		"email":        {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.Email = "Admin <a@example.com>" }, "Email"},
		"two emails":   {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.Email = "a@example.com,b@example.com" }, "Email"},
		"email header": {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.Email = "a@example.com?cc=b" }, "Email"},
		"EAB ID":       {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.EABKeyID = "kid" }, "EABKeyID and EABKey"},
		"EAB key":      {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.EABKey = []byte("key") }, "EABKeyID and EABKey"},
		"roots": {func(_ *tlsauto.Config, d *tlsauto.Directory) {
			d.Roots, d.Client = x509.NewCertPool(), http.DefaultClient
		}, "Roots"},
		"loopback":      {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.URL = "http://127.0.0.1:14000/dir" }, ""},
		"localhost":     {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.URL = "http://localhost:14000/dir" }, ""},
		"Let's Encrypt": {func(_ *tlsauto.Config, d *tlsauto.Directory) { d.URL = "" }, ""},
		"with everything": {func(_ *tlsauto.Config, d *tlsauto.Directory) {
			d.Email, d.EABKeyID, d.EABKey = "a@example.com", "k", []byte("k")
		}, ""},
	}
	for name, test := range directory {
		for kind, issuer := range map[string]func(d tlsauto.Directory) tlsauto.Issuer{
			"ACME":     func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.ACME{Directory: d} },
			"Autocert": func(d tlsauto.Directory) tlsauto.Issuer { return &tlsauto.Autocert{Directory: d} },
		} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				c := tlsauto.Config{Names: []string{"www.example.com"}, Store: tlsauto.NewMemoryStore()}
				d := tlsauto.Directory{AgreeTOS: true, URL: "https://ca.example/directory"}
				test.set(&c, &d)
				c.Issuers = []tlsauto.Issuer{issuer(d)}
				_, err := tlsauto.New(c)
				wantMistake(t, err, test.says)
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Errorf("a secret is in %v", err)
				}
			})
		}
	}
}

func TestWhatIssuersCannotDo(t *testing.T) {
	t.Parallel()
	d := tlsauto.Directory{AgreeTOS: true}
	dns := newFakeAnswers()
	acme := func(challenges ...string) *tlsauto.ACME { return &tlsauto.ACME{Directory: d, Challenges: challenges} }
	withDNS := func(challenges ...string) *tlsauto.ACME {
		return &tlsauto.ACME{Directory: d, Challenges: challenges, DNS: dns}
	}
	mutual := func(c *tlsauto.Config) {
		c.ClientAuth, c.ClientCAFile = tls.RequireAndVerifyClientCert, "ca.pem"
	}
	for name, test := range map[string]struct {
		issuer tlsauto.Issuer
		set    func(c *tlsauto.Config)
		says   string
	}{
		"autocert wildcard": {&tlsauto.Autocert{Directory: d}, func(c *tlsauto.Config) { c.Names = []string{"*.example.com"} }, "no wildcards: *.example.com"},
		"autocert address":  {&tlsauto.Autocert{Directory: d}, func(c *tlsauto.Config) { c.Names = []string{"192.0.2.1"} }, "no addresses: 192.0.2.1"},
		"autocert no dot":   {&tlsauto.Autocert{Directory: d}, func(c *tlsauto.Config) { c.Names = []string{"localhost"} }, "without a dot: localhost"},
		"autocert group":    {&tlsauto.Autocert{Directory: d}, func(c *tlsauto.Config) { c.Groups = [][]string{{"a.example.com", "b.example.com"}} }, "one name"},
		"autocert key":      {&tlsauto.Autocert{Directory: d}, func(c *tlsauto.Config) { c.ReuseKey = true }, "ReuseKey"},
		"autocert P-384":    {&tlsauto.Autocert{Directory: d}, func(c *tlsauto.Config) { c.KeyType = tlsauto.P384 }, "P-384"},
		"autocert mutual":   {&tlsauto.Autocert{Directory: d}, mutual, "TLS-ALPN-01"},
		"autocert":          {&tlsauto.Autocert{Directory: d}, nil, ""},

		"unknown challenge":  {acme("tls-sni-01"), nil, `Challenges[0]: "tls-sni-01" is none of`},
		"twice":              {acme("http-01", "http-01"), nil, "is there twice"},
		"DNS-01 without DNS": {acme("dns-01"), nil, "go together"},
		"DNS without DNS-01": {withDNS("http-01"), nil, "go together"},
		"wildcard":           {acme(), func(c *tlsauto.Config) { c.Names = []string{"*.example.com"} }, "wildcards need dns-01"},
		"address by DNS":     {withDNS("dns-01"), func(c *tlsauto.Config) { c.Names = []string{"192.0.2.1"} }, "addresses need"},
		"mutual":             {acme(), mutual, "others than tls-alpn-01"},
		"mutual by HTTP":     {acme("http-01"), mutual, "ca.pem"}, // which is not there: the only mistake
		"profile":            {&tlsauto.ACME{Directory: d, Profile: "a b"}, nil, "Profile"},
		"wildcard with DNS":  {withDNS(), func(c *tlsauto.Config) { c.Names = []string{"*.example.com"} }, ""},
		"everything": {acme(), func(c *tlsauto.Config) {
			c.Names = []string{"192.0.2.1", "localhost"}
			c.Groups = [][]string{{"a.example.com", "b.example.com"}}
			c.ReuseKey, c.KeyType = true, tlsauto.P384
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := tlsauto.Config{Names: []string{"www.example.com"}, Store: tlsauto.NewMemoryStore(), Issuers: []tlsauto.Issuer{test.issuer}}
			if test.set != nil {
				test.set(&c)
			}
			_, err := tlsauto.New(c)
			wantMistake(t, err, test.says)
		})
	}
}

// wantMistake fails the test unless an error has one mistake that says something; "": there is none.
func wantMistake(t *testing.T, err error, says string) {
	t.Helper()
	switch {
	case says == "" && err != nil:
		t.Error(err)
	case says != "" && (err == nil || !strings.Contains(err.Error(), says) || strings.Count(err.Error(), "\n") > 0):
		t.Errorf("error %v, want %q alone", err, says)
	}
}

func TestIssuerID(t *testing.T) {
	t.Parallel()
	for want, issuer := range map[string]tlsauto.Issuer{
		"https://acme-v02.api.letsencrypt.org/directory":            &tlsauto.Autocert{},
		"https://acme-v02.api.letsencrypt.org/directory#shortlived": &tlsauto.ACME{Profile: "shortlived"},
		"https://ca.example/dir":                                    &tlsauto.ACME{Directory: tlsauto.Directory{URL: "https://ca.example/dir"}},
	} {
		if got := issuer.ID(); got != want {
			t.Errorf("ID %s, want %s", got, want)
		}
	}
}

// A Client is used as it is, and not changed.
func TestDirectoryClient(t *testing.T) {
	t.Parallel()
	ca := newFakeACME(t, nil)
	d := directoryOf(ca)
	transport := &countingTransport{next: ca.server.Client().Transport}
	d.Roots, d.Client = nil, &http.Client{Transport: transport}
	if _, err := (&tlsauto.ACME{Directory: d}).Issue(t.Context(), orderFor(ca, "example.com")); err != nil {
		t.Fatal(err)
	}
	if n := transport.n.Load(); int(n) != ca.count("/") || d.Client.Transport != transport {
		t.Errorf("%d requests of %d", n, ca.count("/"))
	}
}

type countingTransport struct {
	next http.RoundTripper
	n    atomic.Int64
}

func (c *countingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.next.RoundTrip(r)
}

// What is plain http must stay on the machine, whatever the directory says.
func TestDirectoryLeadsElsewhere(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s came to plain http", r.Method, r.URL)
	}))
	t.Cleanup(other.Close)
	ca := newFakeACME(t, func(ca *fakeACME) {
		ca.intercept = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/directory" {
				return false
			}
			respond(w, `{"newNonce":"`+other.URL+`/nonce","newAccount":"`+other.URL+`/account","newOrder":"`+other.URL+`/order"}`)
			return true
		}
	})
	_, err := (&tlsauto.ACME{Directory: directoryOf(ca)}).Issue(t.Context(), orderFor(ca, "example.com"))
	if err == nil || !strings.Contains(err.Error(), "not https") {
		t.Errorf("error %v", err)
	}
}
