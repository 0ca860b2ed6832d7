package tlsauto

import "time"

// Status is how a [Manager] is getting on: enough for a page of health and for metrics.
type Status struct {
	Certificates []CertificateStatus `json:"certificates"`         // in the order of Files, Names, Groups, and then those on demand, sorted
	ClientCAs    *FileStatus         `json:"client_cas,omitempty"` // nil without ClientCAFile

	FallbackServed  uint64                    `json:"fallback_served"`  // handshakes that got a self-signed certificate
	HandshakeErrors map[HandshakeError]uint64 `json:"handshake_errors"` // that were refused, or failed, before a certificate was chosen
	OnDemand        int                       `json:"on_demand"`        // certificates on demand
}

// CertificateStatus is the state of one certificate.
type CertificateStatus struct {
	Names    []string    `json:"names"`
	OnDemand bool        `json:"on_demand,omitzero"`
	File     *FileStatus `json:"file,omitempty"` // for Files

	State     State     `json:"state"`
	Issuer    string    `json:"issuer,omitzero"` // its ID; "" for Files
	Serial    string    `json:"serial,omitzero"` // in hexadecimal digits
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`

	Renewal   time.Time `json:"renewal,omitzero"`    // when it is due
	NextTry   time.Time `json:"next_try,omitzero"`   // of an attempt; the past: as soon as there is room
	Failures  int       `json:"failures,omitzero"`   // in a row
	LastError string    `json:"last_error,omitzero"` // of the last attempt, if that failed
	Obtained  uint64    `json:"obtained,omitzero"`   // by this process
	Failed    uint64    `json:"failed,omitzero"`     // attempts of this process

	// StandIns are those of Names that another certificate of the store is served for, whatever State says, until
	// there is one for them all, and StandInsNotAfter is when the first of them expires.
	StandIns         []string  `json:"stand_ins,omitempty"`
	StandInsNotAfter time.Time `json:"stand_ins_not_after,omitzero"`

	NotStored string `json:"not_stored,omitzero"` // why the newest certificate could not be stored yet
}

// FileStatus is the state of a file, or pair of files, that is read again when it changes.
type FileStatus struct {
	Path      string `json:"path"`                // of the certificate, or ClientCAFile
	Reloads   uint64 `json:"reloads"`             // since the start
	Failures  uint64 `json:"failures"`            // different mistakes since the start
	LastError string `json:"last_error,omitzero"` // why what is there now is refused
}

// A State is what is served for a certificate.
type State string

// The states.
const (
	Trusted  State = "trusted"  // a certificate of an issuer or a file
	Expired  State = "expired"  // one that has expired
	Fallback State = "fallback" // a self-signed one
	None     State = "none"     // none: handshakes are refused
)

// A HandshakeError is a reason why a handshake got no certificate.
type HandshakeError string

// The reasons.
const (
	UnknownName      HandshakeError = "unknown_name"      // of a server that is none of this one
	NoCertificate    HandshakeError = "no_certificate"    // there is none yet, with NoFallback
	UnknownChallenge HandshakeError = "unknown_challenge" // acme-tls/1 for a name that has none
	TooMany          HandshakeError = "too_many"          // names on demand, or challenges at the same time
)
