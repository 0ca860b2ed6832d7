// Command tls is a site, without the rest of Bedplate, that has and renews its certificates by itself.
// On a server that these names lead to, it has them from Let's Encrypt, whose terms of service it
// agrees to:
//
//	go build ./examples/tls
//	sudo ./tls -names example.com,www.example.com -email admin@example.com
//
// On your own machine they are from a development root, and the program says how to have that trusted:
//
//	go run ./examples/tls
//	curl --cacert devca/root.pem https://localhost:8443/
//	curl --cacert devca/root.pem -L http://localhost:8080/
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/bedplate/bedplate/tlsauto"
)

func main() {
	names := flag.String("names", "", "the site's `names`, with commas between them; none: localhost, from a development root")
	email := flag.String("email", "", "where Let's Encrypt may write to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	cfg := tlsauto.Config{Store: autocert.DirCache("certs")}
	secure, plain := ":443", ":80"
	if *names != "" {
		cfg.Names, cfg.Email, cfg.AgreeTOS = strings.Split(*names, ","), *email, true
	} else {
		ca := &tlsauto.DevCA{Dir: "devca"}
		fmt.Fprintln(os.Stderr, ca.TrustHint())
		cfg.Names, cfg.Issuers, cfg.HTTPSPort = []string{"localhost", "127.0.0.1"}, []tlsauto.Issuer{ca}, 8443
		secure, plain = "127.0.0.1:8443", "127.0.0.1:8080"
	}
	if err := serve(ctx, cfg, listen(secure), listen(plain)); err != nil {
		log.Fatal(err)
	}
}

func listen(address string) net.Listener {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

// serve serves a site until ctx ends: these lines are all that its certificates take.
func serve(ctx context.Context, cfg tlsauto.Config, secure, plain net.Listener) error {
	m, err := tlsauto.New(cfg)
	if err != nil {
		return err
	}
	redirect := &http.Server{Handler: m.HTTPHandler(nil), ReadHeaderTimeout: 10 * time.Second} // and challenges
	go func() { log.Print("port 80: ", redirect.Serve(plain)) }()
	site := &http.Server{Handler: http.HandlerFunc(hello), TLSConfig: m.TLSConfig(), ReadHeaderTimeout: 10 * time.Second}
	go func() { log.Print("port 443: ", site.ServeTLS(secure, "", "")) }()
	err = m.Run(ctx) // until ctx ends, and what is to be stored has been stored
	return errors.Join(err, redirect.Close(), site.Shutdown(context.Background()))
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello from %s over %s.\n", r.Host, r.Proto)
}
