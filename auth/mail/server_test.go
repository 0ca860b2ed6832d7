package mail_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"
)

// A server is a mail server on the loopback interface that can be told to
// misbehave. Set the fields before start.
type server struct {
	tls      *tls.Config
	implicit bool
	starttls bool
	auth     string            // what AUTH offers
	answers  map[string]string // by "GREETING", verb, or "BODY" for the end of DATA
	hang     string            // never answers this
	drop     string            // answers this and closes the connection

	port  int
	roots *x509.CertPool
	hung  chan struct{} // closed when hang is reached

	mu       sync.Mutex
	received []delivery
	clear    []string // lines that came without TLS
	verbs    []string
}

type delivery struct {
	from, user, password string
	to                   []string
	tls                  bool
	data                 string
}

func (s *server) start(t *testing.T) {
	t.Helper()
	cert, roots := newCertificate(t)
	s.tls = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	s.roots = roots
	s.hung = make(chan struct{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() {
				defer conn.Close()
				if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err == nil {
					s.serve(conn)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		// Ends only if the client has closed its connections.
		sessions.Wait()
	})
}

func (s *server) serve(conn net.Conn) {
	secure := s.implicit
	if secure {
		conn = tls.Server(conn, s.tls)
	}
	in := textproto.NewReader(bufio.NewReader(conn))
	var d delivery
	// say returns whether to go on.
	say := func(event, answer string) bool {
		if s.hang == event {
			close(s.hung)
			_, _ = in.ReadLine() // until the client closes
			return false
		}
		if other, ok := s.answers[event]; ok {
			answer = other
		}
		_, err := fmt.Fprintf(conn, "%s\r\n", answer)
		return err == nil && s.drop != event
	}
	if !say("GREETING", "220 mail.test ESMTP") {
		return
	}
	for {
		line, err := in.ReadLine()
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(line, " ")
		verb = strings.ToUpper(verb)
		s.mu.Lock()
		s.verbs = append(s.verbs, verb)
		if !secure {
			s.clear = append(s.clear, line)
		}
		s.mu.Unlock()
		answer := "250 ok"
		switch verb {
		case "EHLO":
			answer = "250-mail.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
			if s.starttls && !secure {
				answer += "250-STARTTLS\r\n"
			}
			if s.auth != "" {
				answer += "250-AUTH " + s.auth + "\r\n"
			}
			answer += "250 SIZE"
		case "STARTTLS":
			if !say(verb, "220 go on") {
				return
			}
			conn = tls.Server(conn, s.tls)
			in = textproto.NewReader(bufio.NewReader(conn))
			secure = true
			continue
		case "AUTH":
			d.user, d.password = plainCredentials(rest)
			answer = "235 welcome"
		case "MAIL":
			d.from = rest
		case "RCPT":
			d.to = append(d.to, rest)
		case "DATA":
			if !say(verb, "354 go on") {
				return
			}
			if s.answers[verb] != "" {
				continue
			}
			body, err := in.ReadDotBytes()
			if err != nil {
				return
			}
			d.data, d.tls = string(body), secure
			s.mu.Lock()
			s.received = append(s.received, d)
			s.mu.Unlock()
			d = delivery{}
			verb, answer = "BODY", "250 taken"
		case "QUIT":
			say(verb, "221 bye")
			return
		}
		if !say(verb, answer) {
			return
		}
	}
}

// only returns the one message that came.
func (s *server) only(t *testing.T) delivery {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.received) != 1 {
		t.Fatalf("the server has %d messages, want 1", len(s.received))
	}
	return s.received[0]
}

func plainCredentials(s string) (user, password string) {
	encoded, ok := strings.CutPrefix(s, "PLAIN ")
	if !ok {
		return "", ""
	}
	raw, _ := base64.StdEncoding.DecodeString(encoded)
	parts := strings.Split(string(raw), "\x00")
	if len(parts) != 3 {
		return "", ""
	}
	return parts[1], parts[2]
}

func newCertificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}
