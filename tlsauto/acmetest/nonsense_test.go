package acmetest

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/bedplate/bedplate/tlsauto"
)

// TestNonsense wants settings without sense to be refused at the start. With autocert they are a panic
// in the first handshake, in which a lock of the package stays taken: from then on all Managers of the
// process hang. So this happens in a process of its own.
func TestNonsense(t *testing.T) {
	long(t)
	t.Run("autocert", func(t *testing.T) {
		t.Parallel()
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		child := exec.CommandContext(t.Context(), program, "-test.run=^TestNonsenseOfAutocert$", "-test.v")
		child.Env = append(os.Environ(), nonsenseEnv+"=1")
		out, err := child.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, want := range []string{"first handshake: EOF", "another Manager: context deadline exceeded"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("not in the output: %s\n%s", want, out)
			}
		}
	})
	t.Run("tlsauto", func(t *testing.T) {
		t.Parallel()
		ca := newCA(t, caConfig{})
		for name, config := range map[string]tlsauto.Config{
			"AttemptTimeout": {AttemptTimeout: -1},
			"FilesInterval":  {FilesInterval: -1},
			"KeyType":        {KeyType: 17},
			"HTTPSPort":      {HTTPSPort: 65536},
			"OnDemand":       {MaxOnDemand: -1},
		} {
			config.Names = []string{nameA}
			config.Store = tlsauto.NewMemoryStore()
			config.Issuers = []tlsauto.Issuer{&tlsauto.Autocert{Directory: directory(t, ca, "a")}}
			if _, err := tlsauto.New(config); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: error %v", name, err)
			}
		}
	})
}

const nonsenseEnv = "ACMETEST_NONSENSE"

func TestNonsenseOfAutocert(t *testing.T) {
	if os.Getenv(nonsenseEnv) == "" {
		t.Skip("it is for the process that TestNonsense starts")
	}
	ca := newCA(t, caConfig{})
	for _, run := range []struct {
		what        string
		renewBefore time.Duration
		timeout     time.Duration
	}{
		{"first handshake", 1, patience},
		{"another Manager", 0, 4 * time.Second}, // for which it hangs
	} {
		m := &autocert.Manager{
			Prompt:      autocert.AcceptTOS,
			RenewBefore: run.renewBefore,
			Client:      &acme.Client{DirectoryURL: ca.URL, HTTPClient: ca.client(t, "a")},
		}
		s := setup{ca: ca, who: run.what}
		i := s.serve(t, m.TLSConfig(), http.NotFoundHandler())
		c := i.client(ca, nameA)
		c.timeout = run.timeout
		_, err := c.connect(t.Context())
		fmt.Printf("%s: %v\n", run.what, err)
		i.stop()
	}
}
