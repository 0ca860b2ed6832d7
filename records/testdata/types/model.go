// Code generated from the record APIs. DO NOT EDIT.

// Package model holds the records of the record APIs.
package model

import (
	"encoding/json"

	"github.com/bedplate/bedplate/records"
)

// Kinds is a record of the API kinds.
type Kinds struct {
	A any `json:"a"`
	// no field for "a \"b/c~%", which no tag can name
	ANull        any             `json:"a_null"`
	B            []byte          `json:"b"`
	BNull        []byte          `json:"b_null"`
	File         *records.File   `json:"file"`
	Files        []records.File  `json:"files"`
	ForeignWords json.RawMessage `json:"foreign_words"`
	Geo          json.RawMessage `json:"geo"`
	GeoNull      json.RawMessage `json:"geo_null"`
	Hideout      *int64          `json:"hideout"`
	I            int64           `json:"i"`
	INull        *int64          `json:"i_null"`
	ID           []byte          `json:"id,omitzero"`
	Inline       json.RawMessage `json:"inline"`
	InlineNull   json.RawMessage `json:"inline_null"`
	Kv           json.RawMessage `json:"kv"`
	Old          json.RawMessage `json:"old"`
	Person       int64           `json:"person"`
	Person2      *int64          `json:"person2"`
	R            float64         `json:"r"`
	RNull        *float64        `json:"r_null"`
	T            string          `json:"t"`
	TNull        *string         `json:"t_null"`
	Tree         json.RawMessage `json:"tree"`
	TreeNull     json.RawMessage `json:"tree_null"`
	Up           *string         `json:"up,omitzero"`
}

// Person is a record of the API person.
type Person struct {
	Boss *int64          `json:"boss"`
	ID   int64           `json:"id,omitzero"`
	Meta json.RawMessage `json:"meta"`
	Name string          `json:"name"`
}

// Names is a record of the API names.
type Names struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

// X1st is a record of the API 1st.
type X1st struct {
	X    *string `json:"*/ x"`
	X2   *string `json:"-,"`
	X1st *string `json:"1st"`
	B    *string `json:"<b>"`
	AB   *string `json:"a b"`
	// no field for "a\"b", which no tag can name
	// no field for "a,b", which no tag can name
	// no field for "a`b", which no tag can name
	Class   *string `json:"class"`
	FooBar  *string `json:"foo-bar"`
	FooBar2 *string `json:"fooBar_"`
	FooBar3 *string `json:"foo_bar"`
	ID      string  `json:"id"`
	// no field for "new\n\t\t\tline", which no tag can name
	Type   *int64  `json:"type"`
	UserID int64   `json:"user_id"`
	Été    *string `json:"été"`
	X日本    *string `json:"日本"`
}

// String is a record of the API string.
type String struct {
	Flag     any   `json:"flag"`
	ID       int64 `json:"id,omitzero"`
	Made     any   `json:"made"`
	Whatever any   `json:"whatever"`
}

// AB is a record of the API a_b.
type AB struct {
	C1 json.RawMessage `json:"c1"`
	C2 json.RawMessage `json:"c2"`
	C3 json.RawMessage `json:"c3"`
	C4 json.RawMessage `json:"c4"`
	C5 json.RawMessage `json:"c5"`
	C6 json.RawMessage `json:"c6"`
	C7 json.RawMessage `json:"c7"`
	C8 json.RawMessage `json:"c8"`
	C9 json.RawMessage `json:"c9"`
	ID int64           `json:"id,omitzero"`
}

// AB2 is a record of the API aB.
type AB2 struct {
	Boss *int64 `json:"boss"`
	ID   int64  `json:"id,omitzero"`
	Name string `json:"name"`
}

// PersonInsert is a record of the API person_insert.
type PersonInsert struct {
	ID    int64   `json:"id,omitzero"`
	Place *string `json:"place"`
}

// Geometry is a record of the API geometry.
type Geometry struct {
	ID    int64   `json:"id,omitzero"`
	Place *string `json:"place"`
}

// X is a record of the API __.
type X struct {
	ID    int64   `json:"id,omitzero"`
	Place *string `json:"place"`
}
