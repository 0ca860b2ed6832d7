package tlsauto_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/bedplate/bedplate/tlsauto"
)

// A site with certificates from Let's Encrypt.
func ExampleNew() {
	m, err := tlsauto.New(tlsauto.Config{
		Names:    []string{"example.com", "www.example.com"},
		Email:    "admin@example.com",
		AgreeTOS: true,
		Store:    autocert.DirCache("certs"),
	})
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Print(m.Run(context.Background())) }()
	go func() {
		redirect := &http.Server{Addr: ":80", Handler: m.HTTPHandler(nil), ReadHeaderTimeout: 10 * time.Second}
		log.Print(redirect.ListenAndServe())
	}()
	site := &http.Server{Addr: ":443", TLSConfig: m.TLSConfig(), ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(site.ListenAndServeTLS("", ""))
}

// A pair of files that some other program renews, such as certbot or Kubernetes.
func ExampleNew_files() {
	m, err := tlsauto.New(tlsauto.Config{
		Files: []tlsauto.Files{{
			Cert: "/etc/letsencrypt/live/example.com/fullchain.pem",
			Key:  "/etc/letsencrypt/live/example.com/privkey.pem",
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Print(m.Run(context.Background())) }() // which sees when they change
	site := &http.Server{Addr: ":443", TLSConfig: m.TLSConfig(), ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(site.ListenAndServeTLS("", ""))
}

// A wildcard, and an address with the short-lived profile that it needs, each from an issuer that can.
func ExampleACME() {
	directory := tlsauto.Directory{Email: "admin@example.com", AgreeTOS: true}
	var zone tlsauto.DNSProvider // of the company that has the name servers
	for _, cfg := range []tlsauto.Config{
		{
			Groups:  [][]string{{"example.com", "*.example.com"}},
			Issuers: []tlsauto.Issuer{&tlsauto.ACME{Directory: directory, DNS: zone, Challenges: []string{"dns-01"}}},
			Store:   autocert.DirCache("certs"),
		},
		{
			Names:   []string{"203.0.113.7"},
			Issuers: []tlsauto.Issuer{&tlsauto.ACME{Directory: directory, Profile: "shortlived"}},
			Store:   autocert.DirCache("certs"),
		},
	} {
		m, err := tlsauto.New(cfg)
		if err != nil {
			log.Fatal(err)
		}
		go func() { log.Print(m.Run(context.Background())) }()
	}
}

// Certificates for the customers' own domains, when somebody first comes by one of them.
func ExampleNew_onDemand() {
	var db *sql.DB // has the customers
	_, err := tlsauto.New(tlsauto.Config{
		OnDemand: func(ctx context.Context, name string) error {
			var known bool
			if err := db.QueryRowContext(ctx, `SELECT count(*) FROM customer WHERE domain = ?`, name).Scan(&known); err != nil {
				return err
			}
			if !known {
				return errors.New("not the domain of a customer")
			}
			return nil
		},
		Issuers: []tlsauto.Issuer{&tlsauto.ACME{Directory: tlsauto.Directory{AgreeTOS: true}}},
		Store:   autocert.DirCache("certs"),
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Several processes that share a database, and what is in it replicated with everything else: one of
// them orders, all of them serve.
func ExampleNewSQLStore() {
	ctx := context.Background()
	db, err := sql.Open("sqlite3", "app.db?_journal_mode=WAL&_busy_timeout=10000")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := tlsauto.NewSQLStore(ctx, db, tlsauto.SQLStoreConfig{KeyFile: "secrets/master.key"})
	if err != nil {
		log.Print(err)
		return
	}
	m, err := tlsauto.New(tlsauto.Config{Names: []string{"example.com"}, AgreeTOS: true, Store: store})
	if err != nil {
		log.Print(err)
		return
	}
	go func() { log.Print(m.Run(ctx)) }()
}

// On one's own machine, with a root that is trusted there.
func ExampleDevCA() {
	dir, err := os.MkdirTemp("", "devca") // a lasting one, outside of examples
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ca := &tlsauto.DevCA{Dir: dir}
	m, err := tlsauto.New(tlsauto.Config{
		Names:   []string{"localhost", "*.shop.localhost", "127.0.0.1"},
		Issuers: []tlsauto.Issuer{ca},
		Store:   tlsauto.NewMemoryStore(),
	})
	if err != nil {
		log.Print(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	if err := m.WaitReady(ctx); err != nil {
		log.Print(err)
	}

	text, _, err := ca.Root() // ca.TrustHint says how to have it trusted
	if err != nil {
		log.Print(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	cert, err := m.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.shop.localhost"})
	if err != nil {
		log.Print(err)
		return
	}
	_, err = cert.Leaf.Verify(x509.VerifyOptions{DNSName: "a.shop.localhost", Roots: roots})
	fmt.Println("a.shop.localhost:", err)

	stop()
	fmt.Println("Run:", <-ended)
	// Output:
	// a.shop.localhost: <nil>
	// Run: <nil>
}
