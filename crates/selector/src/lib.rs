//! The selector language: parse, print, evaluate.
