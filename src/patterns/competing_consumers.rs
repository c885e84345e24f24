//! Competing consumers: a message is a task. It waits in a queue until one of several equal workers takes it; the more
//! workers there are, the faster the queue empties, and a worker that dies before it has settled a message leaves it to
//! the others. Images wait to be resized: three workers share the queue, each image is resized once. A route with
//! several queues gives each queue every message, and the consumers of one queue share it: an order reaches inventory,
//! payment and e-mail, each with as many instances as it needs.
//!
//! Who consumes from the queue by name competes. So does an MQTT filter equal to the route's match when the route has
//! one queue, and `$share/<queue>/<match>`. A wider filter only watches: it gets copies and steals no work. A narrower
//! one would take a part of the queue away from the others, which no queue can give: it is refused.

use linkspan_contract::Refused;

use super::{Taking, Work};
use crate::routes::{Relation, Route};

/// Whether a subscription with `filter`, which stands to the route's match as `relation` says, competes.
///
/// # Errors
/// When it is narrower than the match.
pub fn subscription(
    route: &Route,
    relation: Relation,
    group: Option<&str>,
    filter: &str,
) -> Result<Option<Taking>, Refused> {
    let queue = match (relation, group, route.queues.as_slice()) {
        (Relation::Narrower, ..) => return Err(Refused::FilterInvalid(narrower(route, filter))),
        (Relation::Equal, None, [only]) => Some(only),
        (Relation::Equal, Some(group), queues) => queues.iter().find(|queue| &***queue == group),
        _ => None,
    };
    Ok(queue.map(|queue| Taking::Work(Box::new(Work::new(queue, Some(route), &route.backend)))))
}

fn narrower(route: &Route, filter: &str) -> String {
    let whole = route.filter.as_str();
    let instead = match route.queues.as_slice() {
        [only] => format!("`{whole}` or `$queue/{only}`"),
        queues => {
            let each: Vec<String> = queues.iter().map(|queue| format!("`$queue/{queue}`")).collect();
            each.join(" or ")
        }
    };
    format!(
        "`{filter}` is a part of the work route `{whole}`, whose queue cannot be shared by parts: subscribe to {instead}"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Place, taking};
    use super::*;
    use crate::routes::{Filter, Pattern, RouteTable, Routes};

    fn routes() -> Routes {
        let route = |filter, queues: &[&str], pattern| {
            let queues = queues.iter().map(|queue| Arc::from(*queue)).collect();
            Arc::new(Route { queues, ..Route::new(Filter::parse(filter).unwrap(), pattern, "local") })
        };
        let routes = [
            route("images/+", &["images"], Pattern::CompetingConsumers),
            route("orders/placed", &["inventory", "payment"], Pattern::CompetingConsumers),
            route("images/log", &[], Pattern::PublishSubscribe),
        ];
        Routes::new([("/".into(), "local".into())], routes).unwrap()
    }

    fn table(routes: &Routes) -> &RouteTable {
        routes.vhost("/").unwrap()
    }

    fn work(queue: &str) -> Result<Taking, Refused> {
        Ok(Taking::Work(Box::new(Work::new(&queue.into(), None, &"local".into()))))
    }

    fn watch() -> Result<Taking, Refused> {
        Ok(Taking::Watch { places: vec![Place { backend: "local".into(), filter: None }] })
    }

    #[test]
    fn a_filter_equal_to_the_match_competes_when_there_is_one_queue() {
        let routes = routes();
        assert_eq!(taking(table(&routes), None, "images/+"), work("images"));
        assert_eq!(taking(table(&routes), None, "orders/placed"), watch());
    }

    #[test]
    fn a_shared_subscription_named_as_a_queue_competes_in_it() {
        let routes = routes();
        assert_eq!(taking(table(&routes), Some("payment"), "orders/placed"), work("payment"));
        assert_eq!(taking(table(&routes), Some("auditors"), "orders/placed"), watch());
    }

    #[test]
    fn a_wider_filter_only_watches() {
        let routes = routes();
        for filter in ["#", "images/#", "+/+", "orders/#"] {
            assert_eq!(taking(table(&routes), None, filter), watch(), "{filter}");
        }
    }

    #[test]
    fn a_narrower_filter_is_refused_and_told_what_to_subscribe_to() {
        let routes = routes();
        let Err(Refused::FilterInvalid(text)) = taking(table(&routes), None, "images/cat") else {
            panic!("it would take part of a queue");
        };
        assert!(text.contains("`images/+` or `$queue/images`"), "{text}");
        assert_eq!(
            taking(table(&routes), None, "images/log"),
            watch(),
            "a more specific route has that address"
        );
    }
}
