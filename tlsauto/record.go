package tlsauto

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Keys of the store, followed by the id of a certificate: in the part of an issuer, and in the whole.
const (
	certificateKey = "cert+"
	recordKey      = "plan+"
	orderLease     = "order+"
)

const (
	maxStored = 256 << 10 // bytes of a certificate with its chain and key
	maxRecord = 16 << 10
	maxChain  = 10 // certificates
	maxText   = 500

	maxFailures = 1000 // that a record is believed

	// obtainedLine comes before the PEM blocks of a certificate, where there may be text.
	obtainedLine = "Obtained: "

	// atOnceLine follows it for a certificate that replaces one at once.
	atOnceLine = "Replaces: at once\n"
)

// A record is what is kept of failed attempts, so that neither a restart nor another process begins
// anew. It is written before an attempt, too: one that ends with the process has failed. One without
// failures keeps what was wanted.
type record struct {
	Serial   string               // of the certificate to be renewed; "" for the first one
	Issuers  string               // those of the configuration that it is about
	Failures int                  // in a row
	At       time.Time            // of the last failure
	Next     time.Time            // when to try again
	Issuer   string               // that has failed
	Error    string               // of it
	Begun    bool                 `json:",omitempty"` // the last attempt was, and no more is known of it
	Wanted   bool                 `json:",omitempty"` // by Renew, although it was not due
	Held     map[string]time.Time `json:",omitempty"` // issuers that want to be left alone until then
}

// applies reports whether a record is about the certificate that there is now, nil for none.
func (r *record) applies(c *certificate, issuers string, now time.Time) bool {
	switch {
	case r.Issuers != issuers || r.Serial != serialOf(c) || r.Failures < 1 && !r.Wanted:
		return false
	case r.At.After(now.Add(clockTolerance)): // by a clock that was wrong
		return false
	case !isValid(c, now):
		return now.Sub(r.At) < recordHonoured
	}
	return true
}

func serialOf(c *certificate) string {
	if c == nil {
		return ""
	}
	return c.tls.Leaf.SerialNumber.Text(16)
}

func (r *record) encode() ([]byte, error) { return json.Marshal(r) }

func decodeRecord(data []byte) (record, error) {
	var r record
	if len(data) > maxRecord {
		return record{}, fmt.Errorf("%d bytes are too many", len(data))
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, err
	}
	r.Error = boundedText(r.Error)
	r.Failures = min(max(r.Failures, 0), maxFailures)
	if latest := r.At.Add(maxPause); r.Next.After(latest) {
		r.Next = latest
	}
	latest := r.At.Add(maxRetryAfter)
	for issuer, until := range r.Held {
		if until.After(latest) {
			r.Held[issuer] = latest
		}
	}
	return r, nil
}

// boundedText makes text of others fit for a log and a page: short, of one line, and printable.
func boundedText(s string) string {
	const cut = "..."
	if len(s) > maxText {
		end := maxText - len(cut)
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end] + cut
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// encodeCertificate is what the store has of a certificate: when it was obtained, whether it replaces one at once,
// and PEM blocks of the key (PKCS #8), the certificate and its intermediates.
func encodeCertificate(c *certificate) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.tls.PrivateKey)
	if err != nil {
		return nil, errors.New("the private key cannot be stored: it is of another kind")
	}
	var b bytes.Buffer
	if !c.obtained.IsZero() {
		b.WriteString(obtainedLine + c.obtained.UTC().Format(time.RFC3339) + "\n")
	}
	if c.atOnce {
		b.WriteString(atOnceLine)
	}
	blocks := []*pem.Block{{Type: "PRIVATE KEY", Bytes: key}}
	for _, der := range c.tls.Certificate {
		blocks = append(blocks, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	for _, block := range blocks {
		if err := pem.Encode(&b, block); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// decodeObtained returns when a certificate in the store was obtained, or zero if that is not known.
func decodeObtained(data []byte) time.Time {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	text, ok := strings.CutPrefix(string(line), obtainedLine)
	at, err := time.Parse(time.RFC3339, text)
	if !ok || err != nil {
		return time.Time{}
	}
	return at
}

// decodeAtOnce reports whether a certificate in the store replaces one at once.
func decodeAtOnce(data []byte) bool {
	head, _, _ := bytes.Cut(data, []byte("-----BEGIN"))
	return bytes.Contains(head, []byte("\n"+atOnceLine))
}

// decodeCertificate does not check what the certificate is for.
func decodeCertificate(data []byte) (*tls.Certificate, error) {
	if len(data) > maxStored {
		return nil, fmt.Errorf("%d bytes are too many", len(data))
	}
	c := &tls.Certificate{}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		switch block.Type {
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, errors.New("the private key is damaged")
			}
			c.PrivateKey = key
		case "CERTIFICATE":
			c.Certificate = append(c.Certificate, block.Bytes)
		default:
			return nil, errors.New("there is something that is neither key nor certificate")
		}
	}
	if _, ok := c.PrivateKey.(crypto.Signer); !ok || len(c.Certificate) == 0 {
		return nil, errors.New("the key or the certificate is missing")
	}
	return c, nil
}
