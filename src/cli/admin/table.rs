//! How answers are printed: as tables for people, or as they came.

use serde_json::Value;

/// Prints answers.
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// The objects at a key of the answer, a row each.
    pub(super) fn rows(&self, answer: &Value, key: &str, columns: &[&str]) {
        if self.json {
            return print_json(answer);
        }
        let rows = answer[key].as_array().into_iter().flatten();
        let rows = rows.map(|row| match row {
            Value::Object(_) => columns.iter().map(|column| cell(&row[column])).collect(),
            other => vec![cell(other)],
        });
        print!("{}", table(columns, &rows.collect::<Vec<Vec<_>>>()));
        for (key, what) in [("next_token", "from"), ("next_batch", "from")] {
            if !answer[key].is_null() {
                println!("There is more: --{what} {}", cell(&answer[key]));
            }
        }
    }

    /// Every member of the answer, a line each.
    pub(super) fn members(&self, answer: &Value) {
        if self.json {
            return print_json(answer);
        }
        let members = answer.as_object().into_iter().flatten();
        let rows: Vec<_> = members.map(|(key, value)| vec![key.clone(), cell(value)]).collect();
        print!("{}", table(&[], &rows));
    }

    /// One member of the answer.
    pub(super) fn text(&self, answer: &Value, key: &str) {
        match self.json {
            true => print_json(answer),
            false => println!("{}", cell(&answer[key])),
        }
    }

    /// That it is done.
    pub(super) fn done(&self, answer: &Value, what: &str) {
        match self.json {
            true => print_json(answer),
            false => println!("{what}"),
        }
    }
}

fn print_json(answer: &Value) {
    println!("{answer:#}");
}

/// A value in a table. What others have written must not draw on the terminal.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Columns as wide as their widest cell, two spaces between them.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|name| name.to_uppercase()).collect();
    let all = || std::iter::once(&head).filter(|head| !head.is_empty()).chain(rows);
    let count = all().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..count).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in all() {
        let cells = row.iter().zip(&widths);
        let line: Vec<_> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_nothing_draws() {
        let rows = [json!(["@a:x", true, null]), json!(["@longer:x", false, "é\u{1b}[2J"])];
        let rows: Vec<Vec<_>> =
            rows.iter().map(|row| row.as_array().unwrap().iter().map(cell).collect()).collect();
        let text = table(&["name", "admin", "displayname"], &rows);
        let lines = [
            "NAME       ADMIN  DISPLAYNAME",
            "@a:x       yes    -",
            "@longer:x  no     é\u{fffd}[2J",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        assert_eq!(table(&[], &[vec!["a".to_owned(), "b".to_owned()]]), "a  b\n");
    }
}
