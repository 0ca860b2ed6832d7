// Code generated from the record APIs. DO NOT EDIT.

// A record of the API kinds.
export interface Kinds {
  a: number | string;
  "a \"b/c~%": string | null;
  a_null: number | string | null;
  b: string;
  b_null: string | null;
  file: FileInfo | null;
  files: FileInfo[] | null;
  foreign_words: unknown;
  geo: Geometry;
  geo_null: Geometry | null;
  hideout: { id: number; data?: Geometry2 | PersonInsert2 | X } | null;
  i: number;
  i_null: number | null;
  id: string;
  inline: "x" | 2;
  inline_null: "x" | 2 | null;
  kv: KindsKv | null;
  old: unknown;
  person: { id: number; data?: AB2 | PersonIncluded };
  person2: { id: number; data?: AB2 | PersonIncluded } | null;
  r: number;
  r_null: number | null;
  t: string;
  t_null: string | null;
  tree: KindsTree;
  tree_null: KindsTreeNull | null;
  up: string | null;
}

export interface KindsInsert {
  a: number | string | boolean | number[];
  "a \"b/c~%"?: string | null;
  a_null?: number | string | boolean | number[] | null;
  b: string;
  b_null?: string | null;
  file?: FileUpload | null;
  files?: FileUpload[] | null;
  foreign_words?: unknown;
  geo: Geometry;
  geo_null?: Geometry | null;
  hideout?: number | null;
  i: number;
  i_null?: number | null;
  id?: string;
  inline: "x" | 2;
  inline_null?: "x" | 2 | null;
  kv?: KindsKv | null;
  old?: unknown;
  person: number;
  person2?: number | null;
  r?: number;
  r_null?: number | null;
  t: string;
  t_null?: string | null;
  tree: KindsTree;
  tree_null?: KindsTreeNull | null;
}

export interface KindsUpdate {
  a?: number | string | boolean | number[];
  "a \"b/c~%"?: string | null;
  a_null?: number | string | boolean | number[] | null;
  b?: string;
  b_null?: string | null;
  file?: FileUpload | FileInfo | null;
  files?: (FileUpload | FileInfo)[] | null;
  foreign_words?: unknown;
  geo?: Geometry;
  geo_null?: Geometry | null;
  hideout?: number | null;
  i?: number;
  i_null?: number | null;
  id?: string;
  inline?: "x" | 2;
  inline_null?: "x" | 2 | null;
  kv?: KindsKv | null;
  old?: unknown;
  person?: number;
  person2?: number | null;
  r?: number;
  r_null?: number | null;
  t?: string;
  t_null?: string | null;
  tree?: KindsTree;
  tree_null?: KindsTreeNull | null;
}

// A record of the API person.
export interface Person {
  boss: { id: number; data?: AB2 | PersonIncluded } | null;
  id: number;
  meta: PersonMeta | null;
  name: string;
  of?: { records: KindsIncluded[]; more?: boolean };
}

export interface PersonInsert {
  boss?: number | null;
  id?: number;
  meta?: PersonMeta | null;
  name: string;
}

export interface PersonUpdate {
  boss?: number | null;
  id?: number;
  meta?: PersonMeta | null;
  name?: string;
}

// A record of the API names.
export interface Names {
  id: number;
  name: string;
}

// A record of the API 1st.
export interface X1st {
  "*/ x": string | null;
  "-": string | null;
  "1st": string | null;
  "<b>": string | null;
  "a b": string | null;
  "a\"b": string | null;
  "a,b": string | null;
  "a`b": string | null;
  class: string | null;
  "foo-bar": string | null;
  fooBar_: string | null;
  foo_bar: string | null;
  id: string;
  "new\n\t\t\tline": string | null;
  type: number | null;
  user_id: number;
  "été": string | null;
  "日本": string | null;
}

export interface X1stInsert {
  "*/ x"?: string | null;
  "-"?: string | null;
  "1st"?: string | null;
  "<b>"?: string | null;
  "a b"?: string | null;
  "a\"b"?: string | null;
  "a,b"?: string | null;
  "a`b"?: string | null;
  class?: string | null;
  "foo-bar"?: string | null;
  fooBar_?: string | null;
  foo_bar?: string | null;
  id: string;
  "new\n\t\t\tline"?: string | null;
  type?: number | null;
  user_id?: number;
  "été"?: string | null;
  "日本"?: string | null;
}

export interface X1stUpdate {
  "*/ x"?: string | null;
  "-"?: string | null;
  "1st"?: string | null;
  "<b>"?: string | null;
  "a b"?: string | null;
  "a\"b"?: string | null;
  "a,b"?: string | null;
  "a`b"?: string | null;
  class?: string | null;
  "foo-bar"?: string | null;
  fooBar_?: string | null;
  foo_bar?: string | null;
  id?: string;
  "new\n\t\t\tline"?: string | null;
  type?: number | null;
  user_id?: number;
  "été"?: string | null;
  "日本"?: string | null;
}

// A record of the API string.
export interface String {
  flag: number | string;
  id: number;
  made: number | string | null;
  whatever: number | string | null;
}

export interface StringInsert {
  flag: number | string | boolean;
  id?: number;
  made?: number | string | boolean | null;
  whatever?: number | string | boolean | number[] | null;
}

export interface StringUpdate {
  flag?: number | string | boolean;
  id?: number;
  made?: number | string | boolean | null;
  whatever?: number | string | boolean | number[] | null;
}

// A record of the API a_b.
export interface AB {
  c1: number | null | string | true | null;
  c2: ABC2 | null;
  c3: ABC3 | null;
  c4: unknown[] | null;
  c5: unknown;
  c6: never | null;
  c7: unknown;
  c8: ABC8 | null;
  c9: ABC9 | null;
  id: number;
}

export interface ABInsert {
  c1?: number | null | string | true | null;
  c2?: ABC2 | null;
  c3?: ABC3 | null;
  c4?: unknown[] | null;
  c5?: unknown;
  c6?: never | null;
  c7?: unknown;
  c8?: ABC8 | null;
  c9?: ABC9 | null;
  id?: number;
}

export interface ABUpdate {
  c1?: number | null | string | true | null;
  c2?: ABC2 | null;
  c3?: ABC3 | null;
  c4?: unknown[] | null;
  c5?: unknown;
  c6?: never | null;
  c7?: unknown;
  c8?: ABC8 | null;
  c9?: ABC9 | null;
  id?: number;
}

// A record of the API aB.
export interface AB2 {
  boss: number | null;
  id: number;
  name: string;
}

export interface AB2Insert {
  boss?: number | null;
  id?: number;
  name: string;
}

export interface AB2Update {
  boss?: number | null;
  id?: number;
  name?: string;
}

// A record of the API person_insert.
export interface PersonInsert2 {
  id: number;
  place: string | null;
}

export interface PersonInsert2Insert {
  id?: number;
  place?: string | null;
}

export interface PersonInsert2Update {
  id?: number;
  place?: string | null;
}

// A record of the API geometry.
export interface Geometry2 {
  id: number;
  place: string | null;
}

export interface Geometry2Insert {
  id?: number;
  place?: string | null;
}

export interface Geometry2Update {
  id?: number;
  place?: string | null;
}

// A record of the API __.
export interface X {
  id: number;
  place: string | null;
}

export interface XInsert {
  id?: number;
  place?: string | null;
}

export interface XUpdate {
  id?: number;
  place?: string | null;
}

export type KindsKv = { [key: string]: string };

export interface PersonIncluded {
  boss: number | null;
  id: number;
  meta: PersonMeta | null;
  name: string;
}

export type KindsTree = { children?: ({ children?: unknown[]; const?: unknown; n?: number; name: string; other?: string })[]; const?: unknown; n?: number; name: string; other?: string };

export type KindsTreeNull = { children?: ({ children?: unknown[]; const?: unknown; n?: number; name: string; other?: string })[]; const?: unknown; n?: number; name: string; other?: string };

export type PersonMeta = { children?: ({ children?: unknown[]; const?: unknown; n?: number; name: string; other?: string })[]; const?: unknown; n?: number; name: string; other?: string };

export interface KindsIncluded {
  a: number | string;
  "a \"b/c~%": string | null;
  a_null: number | string | null;
  b: string;
  b_null: string | null;
  file: FileInfo | null;
  files: FileInfo[] | null;
  foreign_words: unknown;
  geo: Geometry;
  geo_null: Geometry | null;
  hideout: number | null;
  i: number;
  i_null: number | null;
  id: string;
  inline: "x" | 2;
  inline_null: "x" | 2 | null;
  kv: KindsKv | null;
  old: unknown;
  person: number;
  person2: number | null;
  r: number;
  r_null: number | null;
  t: string;
  t_null: string | null;
  tree: KindsTree;
  tree_null: KindsTreeNull | null;
  up: string | null;
}

export type ABC2 = { [key: string]: ("a" | 1 | null)[] };

export type ABC3 = ({ a: string; [key: string]: unknown }) & ({ "b c"?: number; [key: string]: unknown });

export type ABC8 = { __proto__?: boolean; [key: string]: unknown };

export type ABC9 = { [key: string]: never };

// A geometry of GeoJSON (RFC 7946).
export type Geometry =
  | { type: "Point" | "MultiPoint" | "LineString" | "MultiLineString" | "Polygon" | "MultiPolygon"; coordinates: unknown[] }
  | { type: "GeometryCollection"; geometries: Geometry[] };

// A file that is stored.
export interface FileInfo {
  filename: string;
  original_filename?: string | null;
  content_type?: string | null;
  mime_type?: string | null;
}

// A file to store; data is base64, with padding.
export interface FileUpload {
  name?: string;
  filename?: string;
  content_type?: string;
  data: string;
}
