//! The selection language that the `get_all` calls of all services share.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::reply::is_false;

/// Which objects to list, and what of them. Empty fields do not filter: an empty `id` list means **all**.
/// For calls without a query type of their own, and by [`filter`](Self::filter) for everything that the
/// server can filter by.
///
/// ```
/// use clearml_api_client::Selection;
/// let newest = Selection::default()
///     .filter("project", serde_json::json!(["p1"]))
///     .only(["id", "name"])
///     .order(["-created"])
///     .page(0, 20);
/// assert_eq!(
///     serde_json::to_string(&newest).unwrap(),
///     r#"{"only_fields":["id","name"],"order_by":["-created"],"page":0,"page_size":20,"project":["p1"]}"#
/// );
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Selection {
    /// These objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub id: Vec<String>,
    /// Name by regular expression (searched, not anchored); see [`exact`](crate::exact).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// With any of these tags; `-` before a tag excludes it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// With any of these system tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system_tags: Vec<String>,
    /// Exactly these (dotted) fields are returned; `id` is not added by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_fields: Vec<String>,
    /// Order; `-` before a field means descending.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub order_by: Vec<String>,
    /// Page, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// Objects per page; the server never gives more than 500, and 500 also without pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// Also hidden objects.
    #[serde(skip_serializing_if = "is_false")]
    pub search_hidden: bool,
    /// Further filters, such as `_any_`, `filters` or fields of the service.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Selection {
    /// These objects.
    pub fn ids<T: Into<String>>(ids: impl IntoIterator<Item = T>) -> Self {
        Self {
            id: ids.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Only these fields of them.
    #[must_use]
    pub fn only<'a>(mut self, fields: impl IntoIterator<Item = &'a str>) -> Self {
        self.only_fields = fields.into_iter().map(str::to_owned).collect();
        self
    }

    /// In this order.
    #[must_use]
    pub fn order<'a>(mut self, fields: impl IntoIterator<Item = &'a str>) -> Self {
        self.order_by = fields.into_iter().map(str::to_owned).collect();
        self
    }

    /// One page of them.
    #[must_use]
    pub fn page(mut self, page: u32, size: u32) -> Self {
        (self.page, self.page_size) = (Some(page), Some(size));
        self
    }

    /// Whose `field` is like this.
    #[must_use]
    pub fn filter(mut self, field: impl Into<String>, value: Value) -> Self {
        self.extra.insert(field.into(), value);
        self
    }
}
