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
	if err := listenAndServe(ctx, cfg, secure, plain); err != nil {
		log.Fatal(err)
	}
}

func listenAndServe(ctx context.Context, cfg tlsauto.Config, secure, plain string) error {
	var listen net.ListenConfig
	tlsListener, err := listen.Listen(ctx, "tcp", secure)
	if err != nil {
		return err
	}
	defer tlsListener.Close()
	httpListener, err := listen.Listen(ctx, "tcp", plain)
	if err != nil {
		return err
	}
	defer httpListener.Close()
	return run(ctx, cfg, tlsListener, httpListener)
}

// run serves until ctx ends or something fails.
func run(ctx context.Context, cfg tlsauto.Config, secure, plain net.Listener) error {
	m, err := tlsauto.New(cfg)
	if err != nil {
		return err
	}
	site := &http.Server{Handler: http.HandlerFunc(hello), TLSConfig: m.TLSConfig(), ReadHeaderTimeout: 10 * time.Second}
	redirect := &http.Server{Handler: m.HTTPHandler(nil), ReadHeaderTimeout: 10 * time.Second} // and challenges

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 3)
	go func() { ended <- m.Run(ctx) }()
	go func() { ended <- unlessClosed(site.ServeTLS(secure, "", "")) }()
	go func() { ended <- unlessClosed(redirect.Serve(plain)) }()

	err = <-ended // by ctx, which ends Run, or by a failure
	stop()
	patience, giveUp := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer giveUp()
	return errors.Join(err, site.Shutdown(patience), redirect.Shutdown(patience), <-ended, <-ended)
}

// unlessClosed takes away the error of a server that was shut down.
func unlessClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello from %s over %s.\n", r.Host, r.Proto)
}
